"""``python -m server_app``: run, keep a fleet, look at a run and use its model."""

import sys

from common.commands import Table, run_command

COMMANDS: Table = {
    "simulate": (
        "server_app.commands.simulate",
        "run in this process, without Ray",
    ),
    "report": (
        "server_app.commands.report",
        "write a run's report, or compare runs",
    ),
    "strategies": (
        "server_app.commands.list_strategies",
        "list the strategies there are",
    ),
    "flwr-run": (
        "server_app.launcher.run",
        "run `flwr run` on a SuperLink of its own",
    ),
    "fleet": (
        "server_app.provisioning.command",
        "keys and certificates of devices",
    ),
    "predict": (
        "server_app.commands.predict",
        "predict with the mixture a run trained",
    ),
    "serve": (
        "server_app.commands.serve",
        "serve the mixture of a run over gRPC",
    ),
    "export": (
        "server_app.commands.export",
        "export the mixture of a run as one file",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return run_command("python -m server_app", __doc__, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
