"""``python -m server_app serve``: the whole mixture of a run over gRPC."""

import argparse
import time
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from common.files import version
from common.serving import cli
from common.serving.callers import CallerListError
from server_app.commands.predict import add_source_arguments
from server_app.provisioning import ProvisioningError
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.validity import warn
from server_app.run_source import RunSource


class FleetMembers:
    """The devices of a fleet, as callers: those on its list, as it is now."""

    def __init__(self, fleet: FleetDirectory) -> None:
        self._fleet = fleet

    def version(self) -> Hashable:
        """Return something that changes with the list, and as certificates expire."""
        return version(self._fleet.path / "fleet.json"), time.time() // 60

    def names(self) -> Mapping[str, str]:
        """Return the names of the devices by the fingerprints of their certificates."""
        try:
            return self._fleet.members().accepted()
        except ProvisioningError as error:
            raise CallerListError(str(error)) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_source_arguments(parser)
    parser.add_argument(
        "--fleet",
        type=Path,
        metavar="DIR",
        help="only serve the devices on this fleet's list, as it is at every call; its "
        "certificate and authority are used unless others are named",
    )
    cli.add_serve_arguments(parser, memory=psutil.virtual_memory().total // 4)


def main(args: argparse.Namespace) -> int:
    """Serve until told to stop; 2 for anything that cannot be used."""
    if args.fleet is None:
        return cli.serve(RunSource(args.run), args)
    fleet = FleetDirectory(args.fleet)
    args.tls_cert = args.tls_cert or fleet.path / "server.pem"
    args.tls_key = args.tls_key or fleet.path / "server.key"
    args.tls_ca = args.tls_ca or fleet.authority_file
    with suppress(ProvisioningError):  # told below, where callers are looked up
        warn(fleet)
    return cli.serve(RunSource(args.run), args, FleetMembers(fleet))
