"""``python -m server_app export --run RUN``: the whole mixture of a run as one file."""

import argparse
from pathlib import Path

from common.serving import cli
from server_app.run_source import RunSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    text = "directory of the run"
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help=text)
    cli.add_export_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Write the file; 2 for anything that cannot be used."""
    return cli.export(RunSource(args.run), args)
