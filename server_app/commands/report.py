"""``expertfleet report RUN...``: write the report of a run, or compare several."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from server_app.report.comparison import comparison_page
from server_app.report.pages import FILE, run_page, write_page
from server_app.report.run_data import read_run
from server_app.run_folder.run_files import RunFileError

COMPARISON = Path("comparison.html")


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="directories of runs")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="the page (default: RUN/report.html, or comparison.html of several)",
        ),
    ] = None,
) -> int:
    """Print the path of the page; 2 for a directory that holds no run."""
    if len(runs) > 1:
        return compare(runs, out or COMPARISON)
    return _written(lambda: run_page(read_run(runs[0])), out or runs[0] / FILE)


def compare(runs: Sequence[Path], out: Path) -> int:
    """Write a page that compares runs; print its path, return 2 if one is none."""
    folder = out.absolute().parent
    return _written(
        lambda: comparison_page([read_run(run.absolute()) for run in runs], folder), out
    )


def _written(page: Callable[[], str], out: Path) -> int:
    try:
        write_page(page(), out)
    except (RunFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(out)
    return 0
