"""``expertfleet fleet``: its commands in the order of the help, and whose fleet it is.

The options of each are in ``device_commands``, ``run_commands``, ``status_commands``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from server_app.provisioning import device_commands, run_commands, status_commands
from server_app.provisioning.status import MISSING

app = typer.Typer(
    add_completion=False,
    help="Keys and certificates of devices, and their runs.",
)


@app.callback()
def options(
    context: typer.Context,
    dir: Annotated[
        Path, typer.Option(metavar="DIR", help="the fleet's directory")
    ] = Path("fleet"),
) -> None:
    """Take what stands before the command."""
    context.obj = dir


_COMMANDS: Mapping[str, tuple[Callable[..., int | None], str]] = {
    "init": (
        device_commands.init,
        "Make the authority and the server's certificate.",
    ),
    "add": (
        device_commands.add,
        "Make a device's keys, bundle and registration.",
    ),
    "register": (
        device_commands.register,
        "Register what the SuperLink does not know yet.",
    ),
    "run": (
        run_commands.run,
        "Sign an app, start a run of it, show its log; 1 if it fails.",
    ),
    "log": (
        run_commands.log,
        "Show the log of a run, to its end; 1 if it fails.",
    ),
    "stop": (
        run_commands.stop,
        "Stop a run; what it has kept can be gone on from.",
    ),
    "runs": (
        run_commands.runs,
        "List the newest runs.",
    ),
    "list": (
        device_commands.list_devices,
        "List the devices of this fleet.",
    ),
    "status": (
        status_commands.status,
        "Who is there, how far the run is, what devices hold and did; "
        f"{MISSING} if a device is missing.",
    ),
    "check": (
        status_commands.check,
        "Whether all is well: certificates, devices, versions.",
    ),
    "renew": (
        device_commands.renew,
        "New certificates for the same keys before the old ones end, or another "
        "authority.",
    ),
    "remove": (
        device_commands.remove,
        "Shut devices out, delete their bundles.",
    ),
}

for _name, (_command, _text) in _COMMANDS.items():
    app.command(_name, help=_text)(_command)
