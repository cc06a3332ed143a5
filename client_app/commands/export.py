"""``python -m client_app export``: this device's experts and gate as one file."""

import argparse

from client_app.commands.predict import add_source_arguments, source
from common.serving import cli


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_arguments(parser)
    cli.add_export_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Write the file; 2 for anything that cannot be used."""
    return cli.export(source(args), args)
