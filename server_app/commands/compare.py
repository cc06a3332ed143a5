"""``expertfleet compare RUN...``: one page about several runs."""

from pathlib import Path
from typing import Annotated

import typer

from server_app.commands.report import COMPARISON, compare


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="directories of runs")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="the page")] = COMPARISON,
) -> int:
    """Print the path of the page; 2 for a directory that holds no run."""
    return compare(runs, out)
