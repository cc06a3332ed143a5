"""How long the fleet's certificates are good, said before it is too late."""

import datetime
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from server_app.provisioning import certificates
from server_app.provisioning.certificates import WARNING_DAYS
from server_app.provisioning.directory import FleetDirectory

AUTHORITY, SERVER = "the authority", "the server's certificate"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """When one certificate of the fleet ends.

    Attributes
    ----------
    what : str
        ``AUTHORITY``, ``SERVER``, or whose client certificate it is.
    device : str
        The device's name; "" of the other two.
    days : int
        That are left; 0 or less if it has ended, is missing, or its key is another.
    cure : str
        What renews it; "" where nothing has to be done yet.
    """

    what: str
    device: str = ""
    days: int
    cure: str = ""

    @property
    def problem(self) -> str:
        """One line for what ends soon, else ``""``."""
        if not self.cure:
            return ""
        end = f"ends in {self.days} days"
        if self.days <= 0:
            end = "has ended, ends within a day or is missing"
        return f"{self.what} {end}: {self.cure}"


def endings(fleet: FleetDirectory) -> Iterator[Ending]:
    """Yield when each certificate ends: the authority's first, then the server's.

    Raises
    ------
    ProvisioningError
        If there is no fleet here.
    """
    authority, server = _days_left(_expiry(fleet, "ca.crt")), _server_days_left(fleet)
    cure = "`fleet renew --ca`" if authority <= WARNING_DAYS else ""
    yield Ending(what=AUTHORITY, days=authority, cure=cure)
    # As long-lived as its authority it cannot be made any longer.
    due = server <= WARNING_DAYS and (server < authority or server <= 0)
    cure = "`fleet renew --server`, then restart the server" if due else ""
    yield Ending(what=SERVER, days=server, cure=cure)
    for name, device in fleet.members().devices.items():
        end = device.expires
        days = _days_left(end) if end else authority
        due = days <= WARNING_DAYS and days < max(authority, 1)
        cure = f"`fleet renew {name}`" if due else ""
        what = f"the client certificate of {name}"
        yield Ending(what=what, device=name, days=days, cure=cure)


def warn(fleet: FleetDirectory) -> None:
    """Print every warning on the standard error."""
    for line in warnings(fleet):
        print(f"warning: {line}", file=sys.stderr)


def validity(fleet: FleetDirectory) -> str:
    """Return until when server and authority are good, in one line."""
    ends = []
    for name, whose in (("server.pem", "server"), ("ca.crt", "authority")):
        end = _expiry(fleet, name)
        ends.append(
            f"{whose} until {end:%Y-%m-%d}" if end else f"{whose}: no certificate"
        )
    return ", ".join(ends)


def warnings(fleet: FleetDirectory) -> list[str]:
    """Return a line for whatever ends within ``WARNING_DAYS`` or has ended.

    Raises
    ------
    ProvisioningError
        If there is no fleet here.
    """
    found = [each.problem for each in endings(fleet) if each.problem]
    if fleet.authority.changing:
        found.append(
            "a change of the authority is under way: `fleet renew --ca --finish` "
            "once every device has its bundle"
        )
    return found


def _server_days_left(fleet: FleetDirectory) -> int:
    """Return the days until the server's certificate ends, 0 if its key is another."""
    try:
        key = (fleet.path / "server.key").read_bytes()
        pem = (fleet.path / "server.pem").read_bytes()
        whole = certificates.belong_together(key, pem)
    except (OSError, ValueError):
        whole = False
    return _days_left(_expiry(fleet, "server.pem")) if whole else 0


def _expiry(fleet: FleetDirectory, name: str) -> datetime.datetime | None:
    with suppress(OSError, ValueError):
        return certificates.expiry((fleet.path / name).read_bytes())
    return None


def _days_left(end: datetime.datetime | None) -> int:
    return (end - certificates.now()).days if end else 0
