"""``python -m server_app fleet``: create a fleet, add, list and remove devices."""

import argparse
import getpass
import sys
from pathlib import Path

from server_app.provisioning import ProvisioningError, actions
from server_app.provisioning.certificates import WARNING_DAYS
from server_app.provisioning.check import SILENT_MINUTES
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.init import PORT, init_fleet
from server_app.provisioning.validity import warn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m server_app fleet``."""
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("fleet"),
        metavar="DIR",
        help="the fleet's directory (default: ./fleet)",
    )
    signing = argparse.ArgumentParser(add_help=False)
    signing.add_argument(
        "--ca-key",
        type=Path,
        metavar="FILE",
        help="the authority's private key, on a medium that is kept offline (default: "
        "ca.key in the fleet's directory)",
    )
    signing.add_argument(
        "--ca-passphrase",
        metavar="FILE",
        help="the first line is the passphrase of that key; - asks at the terminal",
    )
    verbs = parser.add_subparsers(dest="action", required=True)
    init = verbs.add_parser(
        "init",
        parents=[signing],
        help="make the authority and the server's certificate",
    )
    init.set_defaults(change=init_fleet)
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
        help="where the SuperLink listens: for this machine only (default: 127.0.0.1 "
        "and the port after that of --superlink, where the proxy listens)",
    )
    init.add_argument(
        "--apps",
        metavar="HOST:PORT",
        help="where `fleet submit` hands the SuperLink an app (default: 127.0.0.1 and "
        "the port after that of --control)",
    )
    init.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="every device gets a share of one data set, which is cut into so many "
        "(default: every device has data of its own)",
    )
    add = verbs.add_parser(
        "add", parents=[signing], help="make a device's keys, bundle, registration"
    )
    add.set_defaults(change=actions.add_devices)
    add.add_argument("names", nargs="+", metavar="NAME")
    add.add_argument(
        "--expert-cap",
        type=int,
        default=0,
        metavar="N",
        help="most experts it may hold (default: what it finds it can)",
    )
    add.add_argument(
        "--memory",
        default="0",
        metavar="SIZE",
        help="most memory it trains in, 800M or 1.5G (default: what it finds)",
    )
    add.add_argument(
        "--data-path",
        metavar="PATH",
        help="file or folder with the data of its own, on the device (default: it "
        "says so itself, `supernode --set data-path=...`)",
    )
    register = verbs.add_parser(
        "register", help="register what the SuperLink does not know yet"
    )
    register.set_defaults(change=lambda fleet, _: actions.register(fleet))
    submit = verbs.add_parser(
        "submit", help="sign an app and start a run of it; -- FLAGS of `flwr run`"
    )
    submit.add_argument(
        "app",
        type=Path,
        nargs="?",
        default=Path(),
        metavar="APP",
        help="directory of the app (default: .)",
    )
    verbs.add_parser("list", help="list the devices of this fleet")
    seen = verbs.add_parser("status", help="what the devices of a run hold and did")
    seen.add_argument(
        "run",
        type=Path,
        nargs="?",
        metavar="RUN",
        help="directory of the run (default: the newest in ./results)",
    )
    well = verbs.add_parser(
        "check", help="whether all is well: certificates, devices, versions"
    )
    well.add_argument(
        "run",
        type=Path,
        nargs="?",
        metavar="RUN",
        help="whose devices' versions to look at (default: the newest in ./results)",
    )
    well.add_argument(
        "--silent",
        type=float,
        default=SILENT_MINUTES,
        metavar="MINUTES",
        help="how long a device may not be heard of (default: %(default)g)",
    )
    well.add_argument("--json", action="store_true", help="one JSON object")
    renew = verbs.add_parser(
        "renew",
        parents=[signing],
        help="new certificates for the same keys before the old ones end, or another "
        "authority",
    )
    renew.set_defaults(change=actions.renew)
    renew.add_argument("names", nargs="*", metavar="NAME", help="devices")
    renew.add_argument(
        "--due",
        action="store_true",
        help=f"whatever of server and devices ends within {WARNING_DAYS} days",
    )
    renew.add_argument(
        "--new-keys",
        action="store_true",
        help="other keys as well, where one may have been stolen",
    )
    renew.add_argument("--server", action="store_true", help="the server's certificate")
    renew.add_argument(
        "--ca",
        action="store_true",
        help="another authority: at first beside the old one, in everybody's bundle",
    )
    renew.add_argument(
        "--finish",
        action="store_true",
        help="with --ca: put it in the old one's place, once all bundles are delivered",
    )
    remove = verbs.add_parser("remove", help="shut devices out, delete their bundles")
    remove.set_defaults(change=actions.remove_devices)
    remove.add_argument("names", nargs="+", metavar="NAME")


def main(args: argparse.Namespace) -> int:
    """Run ``python -m server_app fleet``; 2 for what cannot be done.

    ``check`` returns 1 if something is not well.
    """
    try:
        secret = _passphrase(getattr(args, "ca_passphrase", None))
        fleet = FleetDirectory(args.dir, getattr(args, "ca_key", None), secret)
        if args.action == "submit":
            return actions.submit_app(fleet, args)
        if args.action == "check":
            return actions.show_check(fleet, args)
        if args.action == "list":
            print(actions.listing(fleet))
        elif args.action == "status":
            print(actions.show_status(fleet, args.run))
        else:
            if args.action != "init":
                fleet.members()  # do not create an empty directory only to lock it
            with fleet.locked():
                args.change(fleet, args)
        if fleet.exists():
            warn(fleet)
    except ProvisioningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _passphrase(source: str | None) -> bytes | None:
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
