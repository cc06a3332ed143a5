"""``python -m server_app serve``: the whole mixture of a run over gRPC."""

import argparse

import psutil

from common.serving import cli
from server_app.predict import add_source_arguments
from server_app.trained import RunSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_arguments(parser)
    cli.add_serve_arguments(parser, memory=psutil.virtual_memory().total // 4)


def main(args: argparse.Namespace) -> int:
    """Serve until told to stop; 2 for anything that cannot be used."""
    return cli.serve(RunSource(args.run), args)
