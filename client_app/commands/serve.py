"""``python -m client_app serve``: this device's experts and gate over gRPC."""

import argparse

from client_app.commands.predict import add_source_arguments, source
from client_app.device import profiler
from common.serving import cli


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_arguments(parser)
    # Training goes on beside it and needs most of what there is.
    cli.add_serve_arguments(parser, memory=profiler.memory()["memory_bytes"] // 8)


def main(args: argparse.Namespace) -> int:
    """Serve until told to stop; 2 for anything that cannot be used."""
    return cli.serve(source(args), args)
