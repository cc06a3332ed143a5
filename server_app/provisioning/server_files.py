"""What the server is started from: the proxy's configuration, systemd units, owners.

They follow from ``fleet.json`` and are written again whenever it changes, so that the
address devices connect to and the one that is closed to them cannot drift apart.
"""

import ipaddress
import sysconfig
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template
from textwrap import indent
from typing import Any

from server_app.fleet.owners import VARIABLE, Allowance
from server_app.provisioning.members import Members

UNITS = ("superlink", "superexec", "proxy")
CONTAINER_RESOLVER = "127.0.0.11"
"""Docker's name server, the same in every container."""

OWNERS = "owners/fleet.json"
"""What owners allow, for ServerApps: they run as a user who sees this directory only.

A directory of its own, since what is mounted elsewhere has to follow a file's changes.
"""

CONTAINER_PORT = 9092
"""Where the proxy listens inside its container; which one is published compose says."""


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, an IPv6 host without its brackets."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """Return ``HOST:PORT``, the reverse of ``address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def loopback(host: str) -> bool:
    """Return whether a host is this machine and nobody else reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_files(members: Members, fleet: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file.

    Parameters
    ----------
    members : Members
    fleet : Path
        The fleet's directory as the units are to name it.
    """
    control, port = split_address(members.control)
    _, listen = split_address(members.superlink)
    upstream = indent(_upstream(control, port), 12 * " ").rstrip()
    runtime = ""
    if not loopback(control):
        listen = CONTAINER_PORT
        runtime = _text("runtime.conf", port=port, upstream=upstream)
    # Within one machine devices reach the SuperLink: a proxy would want its port.
    proxied = members.superlink != members.control
    if proxied:
        conf = _text("nginx.conf", listen=listen, upstream=upstream, runtime=runtime)
        yield "nginx.conf", conf.encode()
    flwr = _text("flwr.toml", control=members.control, fleet=fleet)
    yield "flwr/config.toml", flwr.encode()
    yield OWNERS, _owners(members).encode()
    if not loopback(control):
        return  # in containers, which compose starts
    for name in UNITS if proxied else UNITS[:-1]:
        low = name == "proxy" and listen < 1024
        unit = _text(
            f"expertfleet-{name}.service",
            fleet=fleet,
            python=sysconfig.get_path("scripts"),
            host=control,
            port=port,
            control=members.control,
            apps=members.apps,
            owners=VARIABLE,
            hardening=_text(
                "hardening.conf",
                capabilities="CAP_NET_BIND_SERVICE" if low else "",
                # A capability of one's own user namespace opens no low port.
                private_users="no" if low else "yes",
            ),
        )
        yield f"systemd/expertfleet-{name}.service", unit.encode()


def _owners(members: Members) -> str:
    wanted: Any = {"size": True, "devices": {"__all__": set(Allowance.model_fields)}}
    return members.model_dump_json(indent=2, include=wanted) + "\n"


def _upstream(host: str, port: int) -> str:
    target = join_address(host, port)
    text = _text("upstream.conf", target=target)
    if "." in host or ":" in host or host == "localhost":
        return text
    # A container that was made anew has another address: asked again and again.
    return text.replace(
        f"proxy_pass https://{target};",
        f"resolver {CONTAINER_RESOLVER} valid=10s ipv6=off;\n"
        f"set $superlink {host};\nproxy_pass https://$superlink:{port};",
    )


def _text(name: str, **values: object) -> str:
    template = files("server_app.provisioning") / "templates" / name
    return Template(template.read_text("utf-8")).substitute(values)
