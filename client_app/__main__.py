"""``python -m client_app``: what a device's owner runs on the device."""

import sys

from common.commands import Table, run_command

COMMANDS: Table = {
    "profile": (
        "client_app.commands.profile",
        "what this device is and has to give",
    ),
    "check-data": (
        "client_app.commands.check_data",
        "what lies on this device, and whether it can take part",
    ),
    "doctor": (
        "client_app.commands.doctor",
        "what keeps this device from taking part, and what to do",
    ),
    "supernode": (
        "client_app.device.supernode",
        "connect to the SuperLink and train",
    ),
    "trainer": (
        "client_app.device.trainer",
        "train for a SuperNode that runs elsewhere on this machine",
    ),
    "predict": (
        "client_app.commands.predict",
        "predict with this device's experts and gate",
    ),
    "serve": (
        "client_app.commands.serve",
        "serve this device's experts and gate over gRPC",
    ),
    "export": (
        "client_app.commands.export",
        "export this device's experts and gate to a file",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return run_command("python -m client_app", __doc__, COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
