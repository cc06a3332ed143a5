"""How a ``fleet`` command gets at its fleet: to look at it, or to change it alone.

What cannot be done is one line, whatever the command.
"""

import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from common.commands import USAGE
from server_app.provisioning import ProvisioningError
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.validity import warn


@contextmanager
def refusals() -> Iterator[None]:
    """Say in one line what cannot be done, and end with 2."""
    try:
        yield
    except ProvisioningError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from None


def change(
    context: typer.Context,
    action: Callable[[FleetDirectory], None],
    ca_key: Path | None = None,
    passphrase: str | None = None,
    *,
    new: bool = False,
) -> None:
    """Change a fleet that nobody else changes meanwhile."""
    with refusals():
        fleet = FleetDirectory(context.obj, ca_key, _secret(passphrase))
        if not new:
            fleet.members()  # do not create an empty directory only to lock it
        with fleet.locked():
            action(fleet)
        if fleet.exists():
            warn(fleet)


def show(context: typer.Context, text: Callable[[FleetDirectory], str]) -> None:
    """Print what is to be said of a fleet, and what of it ends soon."""
    with refusals():
        fleet = FleetDirectory(context.obj)
        print(text(fleet))
        if fleet.exists():
            warn(fleet)


def _secret(source: str | None) -> bytes | None:
    if source is None:
        return None
    try:
        if source == "-":
            lines = [getpass.getpass("Passphrase of the authority's key: ")]
        else:
            lines = Path(source).read_text("utf-8").splitlines()
    except (OSError, ValueError, EOFError) as error:
        raise ProvisioningError(f"--ca-passphrase {source}: {error}") from None
    if not lines or not lines[0]:
        raise ProvisioningError(f"--ca-passphrase {source}: the first line is empty")
    return lines[0].encode()
