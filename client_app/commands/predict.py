"""``python -m client_app predict``: answers by this device's experts and gate."""

import argparse
from pathlib import Path

from client_app.kept.snapshot import DeviceSource
from common.serving import cli


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_arguments(parser)
    cli.add_predict_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Answer the samples of ``--input``; 2 for anything that cannot be used."""
    return cli.predict(source(args), args)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which model of the device is meant."""
    parser.add_argument(
        "--state-dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="where this device keeps its state",
    )
    parser.add_argument("--run", help="only of this run (default: trained last)")
    parser.add_argument("--client", help="of this client, if there are several")


def source(args: argparse.Namespace) -> DeviceSource:
    """Return the model the arguments name."""
    return DeviceSource(args.state_dir, args.run, args.client)
