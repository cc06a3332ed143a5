"""What each ``fleet`` command but ``init`` does, apart from reading its options."""

import argparse
import unicodedata
from pathlib import Path

from common.settings.sizes import parse_bytes
from common.text import table
from server_app.provisioning import ProvisioningError, apps
from server_app.provisioning.app_keys import app_key
from server_app.provisioning.certificates import WARNING_DAYS, openssh_to_pem
from server_app.provisioning.check import as_json, check, text
from server_app.provisioning.control_api import ControlAPI, UnreachableError
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.exposure import open_addresses, open_to_all
from server_app.provisioning.init import certify_server
from server_app.provisioning.members import Device, Members
from server_app.provisioning.server_files import split_address
from server_app.provisioning.status import run_folder, status
from server_app.provisioning.validity import SERVER, endings, validity


def renew(fleet: FleetDirectory, args: argparse.Namespace) -> None:
    """Replace what ends soon."""
    if args.finish and not args.ca:
        raise ProvisioningError("--finish goes with --ca")
    if not (args.names or args.server or args.ca or args.due):
        raise ProvisioningError("renew what? --due, --server, --ca or names of devices")
    members = fleet.members()
    for name in args.names:
        members.device(name)
    if args.ca and args.finish:
        fleet.finish_change()
        print("the new authority is the only one: restart the server")
        return
    if args.ca:
        fleet.begin_change()
        print(
            f"{fleet.authority_file} holds two authorities: restart the server, bring "
            f"every device its bundle in {fleet.path / 'bundles'} and delete it there, "
            "then `fleet renew --ca --finish`"
        )
    due = [each for each in endings(fleet) if args.due and each.cure]
    if args.server or any(each.what == SERVER for each in due):
        certify_server(fleet, members.hosts, new_key=args.new_keys)
    for name in dict.fromkeys([*args.names, *(e.device for e in due if e.device)]):
        fleet.renew(name, new_keys=args.new_keys)
        print(f"{name}: {fleet.bundle_file(name)}, to be unpacked over the old one")
    if args.due and not due:
        print(f"nothing ends within {WARNING_DAYS} days")


def submit_app(fleet: FleetDirectory, args: argparse.Namespace) -> int:
    """Sign an app and have the SuperLink run it."""
    members = fleet.members()
    signed = apps.sign(args.app, app_key(fleet.path))
    return apps.submit(signed, members.apps, fleet.path / "flwr", args.flags)


def add_devices(fleet: FleetDirectory, args: argparse.Namespace) -> None:
    """Make bundles, then register them where a SuperLink answers."""
    if args.expert_cap < 0:
        raise ProvisioningError(
            f"--expert-cap {args.expert_cap} is not allowed: at least 0"
        )
    try:
        memory = parse_bytes(args.memory)
    except ValueError as error:
        raise ProvisioningError(f"--memory: {error}") from None
    data_path = _checked_path(args.data_path)
    for name in args.names:
        fleet.add(name, args.expert_cap, memory, data_path)
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


def remove_devices(fleet: FleetDirectory, args: argparse.Namespace) -> None:
    """Unregister devices and forget them; one that cannot be shut out stays."""
    members = fleet.members()
    devices = {name: members.device(name) for name in args.names}
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
    known, note = _superlink(fleet, members)
    missing = "unknown" if known is None else "not registered"
    rows = [("device", "data", "cap", "added", "certificate", "SuperLink")]
    for name, device in members.devices.items():
        rows.append(
            (
                name,
                _data(device, members),
                str(device.expert_cap or "-"),
                f"{device.added:%Y-%m-%d}",
                f"until {device.expires:%Y-%m-%d}" if device.expires else "-",
                (known or {}).get(name, missing),
            )
        )
    return f"{table(rows)}\n{validity(fleet)}{note}"


def _data(device: Device, members: Members) -> str:
    if device.partition_id is not None:
        return f"share {device.partition_id} of {members.size}"
    return device.data_path or "its own"


def show_status(fleet: FleetDirectory, run: Path | None) -> str:
    """Return what a run's devices are and did, whether or not a fleet is kept here."""
    folder = run_folder(run)
    if not fleet.exists():
        return status(folder, {})
    known, note = _superlink(fleet, fleet.members())
    return f"{status(folder, known or {})}\n{validity(fleet)}{note}"


def show_check(fleet: FleetDirectory, args: argparse.Namespace) -> int:
    """Print whether all is well; return 1 if it is not."""
    if not args.silent >= 0:
        raise ProvisioningError(f"--silent {args.silent} is not allowed: at least 0")
    found = check(fleet, args.run, args.silent)
    print(as_json(found) if args.json else text(found))
    return 1 if any(each.problems for each in found) else 0


def _superlink(
    fleet: FleetDirectory, members: Members
) -> tuple[dict[str, str] | None, str]:
    """Return devices' states at the SuperLink, None if it is silent, and a note."""
    try:
        with ControlAPI(members.control, fleet.authority_file) as api:
            nodes = api.nodes()
    except UnreachableError as error:
        return None, f"\n({error})"
    names = {openssh_to_pem(d.public_key): n for n, d in members.devices.items()}
    known, note = {}, ""
    for node in nodes:
        if node.public_key in names:
            known[names[node.public_key]] = node.status
        else:
            note += (
                f"\nstranger: node {node.node_id} calls itself {node.name!r}, "
                f"{node.status}; its key is none of this fleet: "
                f"`flwr supernode unregister {node.node_id}`"
            )
    return known, note


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
