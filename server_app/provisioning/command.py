"""``python -m server_app fleet``: create a fleet, add, list and remove devices."""

import argparse
import ipaddress
import re
import sys
from pathlib import Path

from server_app.provisioning import ProvisioningError
from server_app.provisioning.certificates import RENEWAL_DAYS, openssh_to_pem
from server_app.provisioning.directory import LOOPBACK, FleetDirectory, Members
from server_app.provisioning.status import run_folder, status, table
from server_app.provisioning.superlink import ControlAPI, UnreachableError

PORT = 8000
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
    r"(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m server_app fleet``."""
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("fleet"),
        metavar="DIR",
        help="the fleet's directory (default: ./fleet)",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    init = actions.add_parser(
        "init", help="make the authority and the server's certificate, or renew it"
    )
    init.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="DNS name or IP address of the server; repeatable, devices use the first",
    )
    init.add_argument(
        "--superlink",
        metavar="HOST:PORT",
        help=f"what devices connect to (default: the first host, port {PORT})",
    )
    init.add_argument(
        "--control",
        metavar="HOST:PORT",
        help="where this command reaches the SuperLink (default: 127.0.0.1 and the "
        "port of --superlink)",
    )
    init.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="shares the data set is cut into, one a device (default: 10)",
    )
    add = actions.add_parser("add", help="make a device's keys, bundle, registration")
    add.add_argument("names", nargs="+", metavar="NAME")
    add.add_argument(
        "--expert-cap",
        type=int,
        default=0,
        metavar="N",
        help="most experts it may hold (default: what it finds it can)",
    )
    actions.add_parser("register", help="register what the SuperLink does not know yet")
    actions.add_parser("list", help="list the devices of this fleet")
    seen = actions.add_parser("status", help="what the devices of a run hold and did")
    seen.add_argument(
        "run",
        type=Path,
        nargs="?",
        metavar="RUN",
        help="directory of the run (default: the newest in ./results)",
    )
    remove = actions.add_parser("remove", help="shut devices out, delete their bundles")
    remove.add_argument("names", nargs="+", metavar="NAME")


def main(args: argparse.Namespace) -> int:
    """Run ``python -m server_app fleet``; 2 for what cannot be done."""
    fleet = FleetDirectory(args.dir)
    try:
        if args.action == "list":
            print(listing(fleet))
            return 0
        if args.action == "status":
            print(show_status(fleet, args.run))
            return 0
        if args.action != "init":
            fleet.members()  # do not create an empty directory only to lock it
        with fleet.locked():
            if args.action == "init":
                init_fleet(fleet, args)
            elif args.action == "add":
                add_devices(fleet, args.names, args.expert_cap)
            elif args.action == "register":
                register(fleet)
            else:
                remove_devices(fleet, args.names)
    except ProvisioningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def init_fleet(fleet: FleetDirectory, args: argparse.Namespace) -> None:
    """Create a fleet, or bring an existing one in line with new options."""
    hosts = tuple(_checked_host(host) for host in args.host)
    for option in ("superlink", "control"):
        if (address := getattr(args, option)) is not None:
            _checked_address(option, address)
    if args.size is not None and args.size < 1:
        raise ProvisioningError(f"--size {args.size} is not allowed: at least 1")
    if fleet.exists():
        _update_fleet(fleet, hosts, args)
        return
    if not hosts:
        raise ProvisioningError(
            "a new fleet needs --host: the name or address devices reach the server by"
        )
    superlink = args.superlink or _join(hosts[0], PORT)
    port = superlink.rpartition(":")[2]
    members = Members(
        superlink=superlink,
        control=args.control or f"127.0.0.1:{port}",
        hosts=_all_names(hosts),
        size=args.size or 10,
    )
    fleet.create(members)
    print(
        f"fleet in {fleet.path}: devices connect to {members.superlink}\n"
        f"server certificate for {', '.join(members.hosts)}"
    )


def _update_fleet(
    fleet: FleetDirectory, hosts: tuple[str, ...], args: argparse.Namespace
) -> None:
    old = fleet.members()
    new = old.model_copy(
        update={
            "hosts": _all_names(hosts) if hosts else old.hosts,
            "superlink": args.superlink or old.superlink,
            "control": args.control or old.control,
            "size": args.size or old.size,
        }
    )
    for field, option in (("superlink", "--superlink"), ("size", "--size")):
        before, after = getattr(old, field), getattr(new, field)
        if old.devices and before != after:
            raise ProvisioningError(
                f"{option} {after} is not allowed: {len(old.devices)} devices carry "
                f"{before} in their bundles; remove them first"
            )
    renew = new.hosts != old.hosts or fleet.server_days_left() < RENEWAL_DAYS
    if renew:
        fleet.certify_server(new.hosts)
        print(f"new server certificate for {', '.join(new.hosts)}: restart the server")
    if new != old:
        fleet.save(new)
    if not renew and new == old:
        print(f"fleet in {fleet.path}: nothing to do")


def add_devices(fleet: FleetDirectory, names: list[str], expert_cap: int) -> None:
    """Make bundles, then register them where a SuperLink answers."""
    if expert_cap < 0:
        raise ProvisioningError(f"--expert-cap {expert_cap} is not allowed: at least 0")
    for name in names:
        fleet.add(name, expert_cap)
        print(f"{name}: {fleet.bundle_file(name)}")
    try:
        register(fleet)
    except UnreachableError as error:
        # The usual order: the server needs the fleet's certificate to start at all.
        print(f"not registered yet ({error}): run `fleet register` once it is up")


def register(fleet: FleetDirectory) -> None:
    """Register every device that the SuperLink does not know."""
    members = fleet.members()
    with ControlAPI(members.control, fleet.authority_file) as api:
        for name, device in members.devices.items():
            api.register(name, device.public_key)
            fleet.note_registered({name: True})
    print(f"registered at {members.control}: {', '.join(members.devices) or 'nobody'}")


def remove_devices(fleet: FleetDirectory, names: list[str]) -> None:
    """Unregister devices and forget them; one that cannot be shut out stays."""
    members = fleet.members()
    for name in names:
        members.device(name)
    for name in names:
        device = members.device(name)
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
    rows: list[tuple[str, ...]] = [("device", "share", "cap", "added", "SuperLink")]
    for name, device in members.devices.items():
        rows.append(
            (
                name,
                f"{device.partition_id} of {members.size}",
                str(device.expert_cap or "-"),
                f"{device.added:%Y-%m-%d}",
                known.get(name, "unknown" if note else "not registered"),
            )
        )
    return table(rows) + note


def show_status(fleet: FleetDirectory, run: Path | None) -> str:
    """Return what a run's devices are and did, whether or not a fleet is kept here."""
    folder = run_folder(run)
    known: dict[str, str] = {}
    note = ""
    if fleet.exists():
        known, note = _superlink(fleet, fleet.members())
    return status(folder, known) + note


def _superlink(fleet: FleetDirectory, members: Members) -> tuple[dict[str, str], str]:
    """Return the state of every device at the SuperLink, or why there is none."""
    try:
        with ControlAPI(members.control, fleet.authority_file) as api:
            states = {node.public_key: node.status for node in api.nodes()}
    except UnreachableError as error:
        return {}, f"\n({error})"
    keys = {n: openssh_to_pem(d.public_key) for n, d in members.devices.items()}
    return {n: states[key] for n, key in keys.items() if key in states}, ""


def _all_names(hosts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*hosts, *LOOPBACK]))


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


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
