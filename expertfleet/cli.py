"""``expertfleet``: all commands under one name, for server, fleet and device."""

import sys

from common.commands import Table, run_command

COMMANDS: Table = {
    "simulate": ("server_app.commands.simulate", "Train here, in this process."),
    "run": ("server_app.launcher.run", "Train here with Flower and Ray."),
    "sweep": (
        "expertfleet.sweep.command",
        "Train with many settings and seeds, and compare.",
    ),
    "recipes": ("server_app.commands.list_recipes", "List what to begin from."),
    "strategies": ("server_app.commands.list_strategies", "List the strategies."),
    "settings": (
        "server_app.commands.show_settings",
        "List settings, or tell of one.",
    ),
    "report": ("server_app.commands.report", "Write the report of a run."),
    "compare": ("server_app.commands.compare", "Write a page that compares runs."),
    "predict": ("server_app.commands.predict", "Predict with the mixture of a run."),
    "serve": ("server_app.commands.serve", "Serve the mixture of a run over gRPC."),
    "export": ("server_app.commands.export", "Write the mixture of a run as one file."),
    "fleet": ("server_app.provisioning.command", "Keys of devices, and their runs."),
    "check-data": (
        "client_app.commands.check_data",
        "Look at the data of a device: can it take part?",
    ),
    "doctor": (
        "client_app.commands.doctor",
        "Look for what keeps this device from taking part.",
    ),
    "device": ("client_app.__main__", "What runs on a device."),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    about = "Train one mixture of experts across a fleet of devices."
    return run_command("expertfleet", about, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
