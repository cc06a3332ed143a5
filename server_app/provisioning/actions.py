"""What each ``fleet`` command does, apart from reading its options."""

import argparse
import ipaddress
import re
import sys
import unicodedata
from pathlib import Path

from common.settings.sizes import parse_bytes
from common.text import table
from server_app.provisioning import ProvisioningError, apps
from server_app.provisioning.certificates import openssh_to_pem
from server_app.provisioning.control_api import ControlAPI, UnreachableError
from server_app.provisioning.directory import LOOPBACK, FleetDirectory
from server_app.provisioning.exposure import open_addresses
from server_app.provisioning.members import Device, Members
from server_app.provisioning.server_files import join_address, loopback, split_address
from server_app.provisioning.status import run_folder, status
from server_app.provisioning.validity import validity

PORT = 8000
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


def init_fleet(fleet: FleetDirectory, args: argparse.Namespace) -> None:
    """Create a fleet, or bring an existing one in line with new options."""
    hosts = tuple(_checked_host(host) for host in args.host)
    for option in ("superlink", "control", "apps"):
        if (given := getattr(args, option)) is not None:
            _checked_address(option, given)
    if args.size is not None and args.size < 1:
        raise ProvisioningError(f"--size {args.size} is not allowed: at least 1")
    if fleet.exists():
        _update_fleet(fleet, hosts, args)
    else:
        _create_fleet(fleet, hosts, args)


def _create_fleet(
    fleet: FleetDirectory, hosts: tuple[str, ...], args: argparse.Namespace
) -> None:
    if not hosts:
        raise ProvisioningError(
            "a new fleet needs --host: the name or address devices reach the server by"
        )
    superlink = args.superlink or join_address(hosts[0], PORT)
    host, port = split_address(superlink)
    # A fleet within one machine needs no proxy.
    behind = superlink if loopback(host) else join_address("127.0.0.1", _after(port))
    control = args.control or behind
    members = Members(
        superlink=superlink,
        control=control,
        apps=args.apps or join_address("127.0.0.1", _after(split_address(control)[1])),
        hosts=_all_names(hosts, control),
        size=args.size,
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
        print(f"warning: {_open_to_all(found)}", file=sys.stderr)


def _open_to_all(found: list[str]) -> str:
    return (
        f"the Control API answers everybody at {', '.join(found)}: whoever gets there "
        "can let devices in and submit code"
    )


def _after(port: int) -> int:
    return port + 1 if port < 65535 else port - 1


def _update_fleet(
    fleet: FleetDirectory, hosts: tuple[str, ...], args: argparse.Namespace
) -> None:
    old = fleet.members()
    fields = ("superlink", "control", "apps", "size")
    given = {field: getattr(args, field) or getattr(old, field) for field in fields}
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
        _certify_server(fleet, new.hosts)
    _check_doors(new)
    fleet.save(new)  # what follows from it may be of an older version
    if new == old:
        print(f"fleet in {fleet.path}: nothing to do")


def _certify_server(fleet: FleetDirectory, hosts: tuple[str, ...]) -> None:
    fleet.certify_server(hosts)
    print(f"new server certificate for {', '.join(hosts)}: restart the server")


def renew(fleet: FleetDirectory, args: argparse.Namespace) -> None:
    """Replace what ends soon."""
    if args.finish and not args.ca:
        raise ProvisioningError("--finish goes with --ca")
    if not (args.names or args.server or args.ca):
        raise ProvisioningError("renew what? --server, --ca or names of devices")
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
    if args.server:
        _certify_server(fleet, members.hosts)
    for name in args.names:
        fleet.renew(name)
        print(f"{name}: {fleet.bundle_file(name)}, to be unpacked over the old one")


def submit_app(fleet: FleetDirectory, args: argparse.Namespace) -> int:
    """Sign an app and have the SuperLink run it."""
    members = fleet.members()
    signed = apps.sign(args.app, fleet.app_key())
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
            f"{_open_to_all(found)}. Start the SuperLink with --host "
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


def _checked_address(option: str, text: str) -> None:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ProvisioningError(f"--{option} {text!r} is not HOST:PORT")
    _checked_host(host.strip("[]"))
