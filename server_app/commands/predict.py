"""``python -m server_app predict``: answers by the whole mixture of a run."""

import argparse
from pathlib import Path

from common.serving import cli
from server_app.run_source import RunSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_arguments(parser)
    cli.add_predict_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Answer the samples of ``--input``; 2 for anything that cannot be used."""
    return cli.predict(RunSource(args.run), args)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which run is meant."""
    parser.add_argument(
        "--run", type=Path, required=True, metavar="RUN", help="directory of the run"
    )
