"""``expertfleet predict``: answers by the whole mixture of a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from common.commands import takes
from common.serving import cli

Run = Annotated[Path, typer.Option(metavar="RUN", help="directory of the run")]


@takes(cli.predict)
def command(run: Run, **options: Any) -> int:
    """Answer samples; 2 for anything that cannot be used."""
    from server_app.run_source import RunSource

    return cli.predict(RunSource(run), **options)
