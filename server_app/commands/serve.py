"""``expertfleet serve``: the whole mixture of a run over gRPC."""

import time
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from common.commands import takes
from common.files import version
from common.serving import cli
from common.serving.callers import CallerListError
from server_app.commands.predict import Run
from server_app.provisioning import ProvisioningError
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.validity import warn


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


@takes(cli.serve)
def command(
    run: Run,
    fleet: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="only serve the devices on this fleet's list, as it is at every call; "
            "its certificate and authority are used unless others are named",
        ),
    ] = None,
    memory: cli.Memory = None,
    **options: Any,
) -> int:
    """Serve until told to stop; 2 for anything that cannot be used."""
    from server_app.run_source import RunSource

    memory = memory or psutil.virtual_memory().total // 4
    if fleet is None:
        return cli.serve(RunSource(run), memory, None, **options)
    members = FleetDirectory(fleet)
    options["tls_cert"] = options["tls_cert"] or members.path / "server.pem"
    options["tls_key"] = options["tls_key"] or members.path / "server.key"
    options["tls_ca"] = options["tls_ca"] or members.authority_file
    with suppress(ProvisioningError):  # told below, where callers are looked up
        warn(members)
    return cli.serve(RunSource(run), memory, FleetMembers(members), **options)
