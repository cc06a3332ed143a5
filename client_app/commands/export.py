"""``expertfleet device export``: this device's experts and gate as one file."""

from typing import Any

from client_app.commands.predict import Client, Run, StateDir
from common.commands import takes
from common.serving import cli


@takes(cli.export)
def command(
    state_dir: StateDir, run: Run = None, client: Client = None, **options: Any
) -> int:
    """Write the file; 2 for anything that cannot be used."""
    from client_app.kept.snapshot import DeviceSource

    return cli.export(DeviceSource(state_dir, run, client), **options)
