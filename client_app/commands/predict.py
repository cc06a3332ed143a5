"""``expertfleet device predict``: answers by this device's experts and gate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from common.commands import takes
from common.serving import cli

StateDir = Annotated[
    Path, typer.Option(metavar="DIR", help="where this device keeps its state")
]
Run = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="only of this run (default: trained last)"),
]
Client = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="of this client, if there are several"),
]


@takes(cli.predict)
def command(
    state_dir: StateDir, run: Run = None, client: Client = None, **options: Any
) -> int:
    """Answer samples; 2 for anything that cannot be used."""
    from client_app.kept.snapshot import DeviceSource

    return cli.predict(DeviceSource(state_dir, run, client), **options)
