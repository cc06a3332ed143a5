"""``python -m server_app report RUN [RUN...]``: write a report, or compare."""

import argparse
import sys
from pathlib import Path

from server_app.report.pages import FILE, comparison_page, run_page, write_page
from server_app.report.run_data import read_run
from server_app.run_folder.run_files import RunFileError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m server_app report``."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default: RUN/report.html, or comparison.html of several)",
    )


def main(args: argparse.Namespace) -> int:
    """Print the path of the page; 2 for a directory that holds no run."""
    try:
        runs = [read_run(folder) for folder in args.runs]
        if len(runs) == 1:
            html, out = run_page(runs[0]), args.out or args.runs[0] / FILE
        else:
            html, out = comparison_page(runs), args.out or Path("comparison.html")
        write_page(html, out)
    except (RunFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(out)
    return 0
