"""What the ``fleet`` commands about certificates and devices do, but for ``init``."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from common.settings.sizes import parse_bytes
from common.text import table
from server_app.provisioning import ProvisioningError
from server_app.provisioning.certificates import WARNING_DAYS
from server_app.provisioning.control_api import ControlAPI, UnreachableError
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.exposure import open_addresses, open_to_all
from server_app.provisioning.init import certify_server
from server_app.provisioning.known_nodes import known_nodes
from server_app.provisioning.members import Device, Members
from server_app.provisioning.server_files import split_address
from server_app.provisioning.validity import SERVER, endings, validity


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """What is to be renewed.

    Attributes
    ----------
    names : tuple of str
        Devices.
    due, server, ca : bool
        Whatever ends soon; the server's certificate; the authority.
    new_keys, finish : bool
        With other keys; the second half of another authority.
    """

    names: tuple[str, ...] = ()
    due: bool = False
    server: bool = False
    ca: bool = False
    new_keys: bool = False
    finish: bool = False


def renew(fleet: FleetDirectory, wanted: Renewal) -> None:
    """Replace what ends soon."""
    if wanted.finish and not wanted.ca:
        raise ProvisioningError("--finish goes with --ca")
    if not (wanted.names or wanted.server or wanted.ca or wanted.due):
        raise ProvisioningError("renew what? --due, --server, --ca or names of devices")
    members = fleet.members()
    for name in wanted.names:
        members.device(name)
    if wanted.ca and wanted.finish:
        fleet.finish_change()
        print("the new authority is the only one: restart the server")
        return
    if wanted.ca:
        fleet.begin_change()
        print(
            f"{fleet.authority_file} holds two authorities: restart the server, bring "
            f"every device its bundle in {fleet.path / 'bundles'} and delete it there, "
            "then `fleet renew --ca --finish`"
        )
    due = [each for each in endings(fleet) if wanted.due and each.cure]
    if wanted.server or any(each.what == SERVER for each in due):
        certify_server(fleet, members.hosts, new_key=wanted.new_keys)
    for name in dict.fromkeys([*wanted.names, *(e.device for e in due if e.device)]):
        fleet.renew(name, new_keys=wanted.new_keys)
        print(f"{name}: {fleet.bundle_file(name)}, to be unpacked over the old one")
    if wanted.due and not due:
        print(f"nothing ends within {WARNING_DAYS} days")


def add_devices(
    fleet: FleetDirectory,
    names: Sequence[str],
    expert_cap: int,
    memory: str,
    data_path: str | None,
) -> None:
    """Make bundles, then register them where a SuperLink answers."""
    if expert_cap < 0:
        raise ProvisioningError(f"--expert-cap {expert_cap} is not allowed: at least 0")
    try:
        most = parse_bytes(memory)
    except ValueError as error:
        raise ProvisioningError(f"--memory: {error}") from None
    path = _checked_path(data_path)
    for name in names:
        fleet.add(name, expert_cap, most, path)
        print(f"{name}: {fleet.bundle_file(name)}")
    try:
        register(fleet)
    except UnreachableError as error:
        # The usual order: the server needs the fleet's certificate to start at all.
        print(f"not registered yet ({error}): run `fleet register` once it is up")


def register(fleet: FleetDirectory) -> None:
    """Register every device that the SuperLink does not know.

    Raises
    ------
    ProvisioningError
        If strangers could do the same, or have done it under a device's name.
    """
    members = fleet.members()
    if found := open_addresses(members):
        raise ProvisioningError(
            f"{open_to_all(found)}. Start the SuperLink with --host "
            f"{split_address(members.control)[0]} and let devices in through the proxy "
            f"({fleet.path / 'nginx.conf'})"
        )
    with ControlAPI(members.control, fleet.authority_file) as api:
        for name, device in members.devices.items():
            api.register(name, device.public_key)
            fleet.note_registered(name)
    print(f"registered at {members.control}: {', '.join(members.devices) or 'nobody'}")


def remove_devices(fleet: FleetDirectory, names: Sequence[str]) -> None:
    """Unregister devices and forget them; one that cannot be shut out stays."""
    members = fleet.members()
    devices = {name: members.device(name) for name in names}
    for name, device in devices.items():
        try:
            with ControlAPI(members.control, fleet.authority_file) as api:
                api.unregister(device.public_key)
        except UnreachableError as error:
            if device.registered:
                raise ProvisioningError(
                    f"{name} stays: its key is still good at the SuperLink ({error})"
                ) from None
        fleet.remove(name)
        print(f"{name}: removed")


def listing(fleet: FleetDirectory) -> str:
    """Return the table of devices, with the SuperLink's word if it answers."""
    members = fleet.members()
    nodes = known_nodes(fleet)
    missing = "not registered" if nodes.answered else "unknown"
    rows = [("device", "data", "cap", "added", "certificate", "SuperLink")]
    for name, device in members.devices.items():
        rows.append(
            (
                name,
                _data(device, members),
                str(device.expert_cap or "-"),
                f"{device.added:%Y-%m-%d}",
                f"until {device.expires:%Y-%m-%d}" if device.expires else "-",
                nodes.devices[name].status if name in nodes.devices else missing,
            )
        )
    notes = nodes.stranger_lines() if nodes.answered else [f"({nodes.problem})"]
    return "\n".join([table(rows), validity(fleet), *notes])


def _data(device: Device, members: Members) -> str:
    if device.partition_id is not None:
        return f"share {device.partition_id} of {members.size}"
    return device.data_path or "its own"


def _checked_path(text: str | None) -> str:
    if text is None:
        return ""
    # What the SuperNode's command line can carry.
    if not text.startswith(("/", "~/")) or {'"', "\\"} & set(text) or not _plain(text):
        raise ProvisioningError(
            f"--data-path {text!r} is not allowed: a path on the device from / or ~/ "
            "on, without quotes, backslashes and control characters"
        )
    return text


def _plain(text: str) -> bool:
    return all(unicodedata.category(each) not in {"Cc", "Cs"} for each in text)
