"""``expertfleet export``: the whole mixture of a run as one file."""

from typing import Any

from common.commands import takes
from common.serving import cli
from server_app.commands.predict import Run


@takes(cli.export)
def command(run: Run, **options: Any) -> int:
    """Write the file; 2 for anything that cannot be used."""
    from server_app.run_source import RunSource

    return cli.export(RunSource(run), **options)
