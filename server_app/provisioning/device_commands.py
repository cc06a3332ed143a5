"""``fleet`` commands about certificates and devices: from ``init`` to ``remove``.

Their options alone; what they do is in ``init`` and ``actions``.
"""

from pathlib import Path
from typing import Annotated

import typer

from server_app.provisioning import actions
from server_app.provisioning.certificates import WARNING_DAYS
from server_app.provisioning.fleet_access import change, show
from server_app.provisioning.init import PORT, NewFleet, init_fleet

CaKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="the authority's private key, on a medium that is kept offline (default: "
        "ca.key in the fleet's directory)",
    ),
]
Passphrase = Annotated[
    str | None,
    typer.Option(
        "--ca-passphrase",
        metavar="FILE",
        help="the first line is the passphrase of that key; - asks at the terminal",
    ),
]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="devices")]


def init(
    context: typer.Context,
    host: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="DNS name or IP address of the server; repeatable, devices use the "
            "first",
        ),
    ] = [],  # noqa: B006  typer copies it
    superlink: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help=f"what devices connect to (default: the first host, port {PORT})",
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="where the SuperLink listens: for this machine only (default: "
            "127.0.0.1 and the port after that of --superlink, the proxy's)",
        ),
    ] = None,
    apps: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="where `fleet run` hands the SuperLink an app (default: 127.0.0.1 "
            "and the port after that of --control)",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="every device gets a share of one data set, which is cut into so many "
            "(default: every device has data of its own)",
        ),
    ] = None,
    ca_key: CaKey = None,
    passphrase: Passphrase = None,
) -> None:
    """Create a fleet, or bring one in line with new options."""
    wanted = NewFleet(
        hosts=tuple(host), superlink=superlink, control=control, apps=apps, size=size
    )
    change(
        context, lambda fleet: init_fleet(fleet, wanted), ca_key, passphrase, new=True
    )


def add(
    context: typer.Context,
    names: Names,
    expert_cap: Annotated[
        int,
        typer.Option(
            metavar="N", help="most experts it may hold (0: what it finds it can)"
        ),
    ] = 0,
    memory: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="most memory it trains in, 800M or 1.5G (0: what it finds)",
        ),
    ] = "0",
    data_path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="file or folder with the data of its own, on the device (default: it "
            "says so itself, `supernode --set data-path=...`)",
        ),
    ] = None,
    ca_key: CaKey = None,
    passphrase: Passphrase = None,
) -> None:
    """Add devices."""
    change(
        context,
        lambda fleet: actions.add_devices(fleet, names, expert_cap, memory, data_path),
        ca_key,
        passphrase,
    )


def register(context: typer.Context) -> None:
    """Register devices."""
    change(context, actions.register)


def list_devices(context: typer.Context) -> None:
    """List devices."""
    show(context, actions.listing)


def renew(
    context: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="[NAME...]", help="devices")
    ] = [],  # noqa: B006  typer copies it
    due: Annotated[
        bool,
        typer.Option(
            "--due",
            help=f"whatever of server and devices ends within {WARNING_DAYS} days",
        ),
    ] = False,
    new_keys: Annotated[
        bool,
        typer.Option(
            "--new-keys", help="other keys as well, where one may have been stolen"
        ),
    ] = False,
    server: Annotated[
        bool, typer.Option("--server", help="the server's certificate")
    ] = False,
    ca: Annotated[
        bool,
        typer.Option(
            "--ca",
            help="another authority: at first beside the old one, in all bundles",
        ),
    ] = False,
    finish: Annotated[
        bool,
        typer.Option(
            "--finish",
            help="with --ca: put it in the old one's place, once all bundles are "
            "delivered",
        ),
    ] = False,
    ca_key: CaKey = None,
    passphrase: Passphrase = None,
) -> None:
    """Renew certificates."""
    wanted = actions.Renewal(
        names=tuple(names),
        due=due,
        new_keys=new_keys,
        server=server,
        ca=ca,
        finish=finish,
    )
    change(context, lambda fleet: actions.renew(fleet, wanted), ca_key, passphrase)


def remove(context: typer.Context, names: Names) -> None:
    """Remove devices."""
    change(context, lambda fleet: actions.remove_devices(fleet, names))
