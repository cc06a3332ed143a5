"""How long the fleet's certificates are good, said before it is too late."""

import datetime
import sys
from contextlib import suppress

from server_app.provisioning import certificates
from server_app.provisioning.certificates import WARNING_DAYS
from server_app.provisioning.directory import FleetDirectory


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
    found = []
    authority, server = _days_left(_expiry(fleet, "ca.crt")), _server_days_left(fleet)
    if authority <= WARNING_DAYS:
        found.append(f"the authority {_end(authority)}: `fleet renew --ca`")
    # As long-lived as its authority it cannot be made any longer.
    if server <= WARNING_DAYS and (server < authority or server <= 0):
        found.append(
            f"the server's certificate {_end(server)}: `fleet renew --server`, "
            "then restart the server"
        )
    for name, device in fleet.members().devices.items():
        end = device.expires
        days = _days_left(end) if end else authority
        if days <= WARNING_DAYS and days < max(authority, 1):
            found.append(
                f"the client certificate of {name} {_end(days)}: `fleet renew {name}`"
            )
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


def _end(days: int) -> str:
    if days > 0:
        return f"ends in {days} days"
    return "has ended, ends within a day or is missing"
