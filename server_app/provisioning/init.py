"""``fleet init``: a fleet is created, or brought in line with new options."""

import ipaddress
import re
import sys
from dataclasses import dataclass

from server_app.provisioning import ProvisioningError
from server_app.provisioning.directory import LOOPBACK, FleetDirectory
from server_app.provisioning.exposure import open_addresses, open_to_all
from server_app.provisioning.members import Members
from server_app.provisioning.server_files import join_address, loopback, split_address

PORT = 8000
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


@dataclass(frozen=True, kw_only=True)
class NewFleet:
    """What a fleet shall be; None and no hosts leave what it is.

    Attributes
    ----------
    hosts : tuple of str
        DNS names and addresses of the server.
    superlink, control, apps : str or None
        HOST:PORT that devices connect to, of the SuperLink, and of signed apps.
    size : int or None
        Shares that one data set is cut into.
    """

    hosts: tuple[str, ...] = ()
    superlink: str | None = None
    control: str | None = None
    apps: str | None = None
    size: int | None = None


def init_fleet(fleet: FleetDirectory, wanted: NewFleet) -> None:
    """Create a fleet, or bring an existing one in line with new options."""
    hosts = tuple(_checked_host(host) for host in wanted.hosts)
    for option in ("superlink", "control", "apps"):
        if (given := getattr(wanted, option)) is not None:
            _checked_address(option, given)
    if wanted.size is not None and wanted.size < 1:
        raise ProvisioningError(f"--size {wanted.size} is not allowed: at least 1")
    if fleet.exists():
        _update_fleet(fleet, hosts, wanted)
    else:
        _create_fleet(fleet, hosts, wanted)


def _create_fleet(
    fleet: FleetDirectory, hosts: tuple[str, ...], wanted: NewFleet
) -> None:
    if not hosts:
        raise ProvisioningError(
            "a new fleet needs --host: the name or address devices reach the server by"
        )
    superlink = wanted.superlink or join_address(hosts[0], PORT)
    host, port = split_address(superlink)
    # A fleet within one machine needs no proxy.
    behind = superlink if loopback(host) else join_address("127.0.0.1", _after(port))
    control = wanted.control or behind
    members = Members(
        superlink=superlink,
        control=control,
        apps=wanted.apps
        or join_address("127.0.0.1", _after(split_address(control)[1])),
        hosts=_all_names(hosts, control),
        size=wanted.size,
    )
    _check_doors(members)
    if fleet.create(members):
        print(
            f"kept the authority of {fleet.path}, whose fleet.json is lost: devices go "
            "on trusting this server, but their list and shares are gone. Restore "
            "fleet.json from a backup, or add them anew"
        )
    print(
        f"fleet in {fleet.path}: devices connect to {members.superlink}, the SuperLink "
        f"listens at {members.control}\n"
        f"server certificate for {', '.join(members.hosts)}"
    )


def _check_doors(members: Members) -> None:
    """Raise or warn where others than this machine would reach the SuperLink itself."""
    control, port = split_address(members.control)
    host, public = split_address(members.superlink)
    if not loopback(control):
        print(
            f"warning: the SuperLink at {members.control} is not on this machine "
            "alone, and its Control API asks nobody who they are: whoever reaches that "
            "address can let devices in and submit code. Only a network without a way "
            "in, as docker/ has, will do",
            file=sys.stderr,
        )
    elif not loopback(host) and port == public:
        raise ProvisioningError(
            f"--control {members.control} is not allowed: devices connect to port "
            f"{port} of the proxy, the SuperLink needs another: --control "
            f"{join_address(control, _after(port))}"
        )
    if found := open_addresses(members):
        print(f"warning: {open_to_all(found)}", file=sys.stderr)


def _after(port: int) -> int:
    return port + 1 if port < 65535 else port - 1


def _update_fleet(
    fleet: FleetDirectory, hosts: tuple[str, ...], wanted: NewFleet
) -> None:
    old = fleet.members()
    fields = ("superlink", "control", "apps", "size")
    given = {field: getattr(wanted, field) or getattr(old, field) for field in fields}
    given["hosts"] = _all_names(hosts or old.hosts, given["control"])
    new = old.model_copy(update=given)
    shares = [each for each in old.devices.values() if each.partition_id is not None]
    for field, carry in (("superlink", len(old.devices)), ("size", len(shares))):
        before, after = getattr(old, field), getattr(new, field)
        if carry and before != after:
            raise ProvisioningError(
                f"--{field} {after} is not allowed: {carry} devices carry {before} in "
                "their bundles; remove them first"
            )
    if new.hosts != old.hosts:
        certify_server(fleet, new.hosts)
    _check_doors(new)
    fleet.save(new)  # what follows from it may be of an older version
    if new == old:
        print(f"fleet in {fleet.path}: nothing to do")


def certify_server(
    fleet: FleetDirectory, hosts: tuple[str, ...], *, new_key: bool = False
) -> None:
    """Give the server a new certificate for these names, and say so."""
    fleet.certify_server(hosts, new_key=new_key)
    print(f"new server certificate for {', '.join(hosts)}: restart the server")


def _all_names(hosts: tuple[str, ...], control: str) -> tuple[str, ...]:
    """Return what the server's certificate is for: devices, and this command."""
    return tuple(dict.fromkeys([*hosts, *LOOPBACK, split_address(control)[0]]))


def _checked_host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise ProvisioningError(
                f"--host {text!r} is neither a host name nor an IP address"
            ) from None
        return text.lower()


def _checked_address(option: str, text: str) -> None:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ProvisioningError(f"--{option} {text!r} is not HOST:PORT")
    _checked_host(host.strip("[]"))
