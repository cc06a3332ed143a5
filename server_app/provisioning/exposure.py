"""Whether strangers reach the Control API, which asks nobody who they are.

Tried as a stranger would: from an address others reach this machine by, without a key
and without looking at the server's certificate.
"""

import socket

import httpx
import psutil

from server_app.provisioning.members import Members
from server_app.provisioning.server_files import join_address, loopback, split_address

ASKED = "/v1/control/list-nodes"
TIMEOUT = 3.0
"""Seconds for an address that does not answer: behind a firewall, as it should be."""


def open_addresses(members: Members) -> list[str]:
    """Return the addresses at which the Control API answers others than this machine.

    HOST:PORT; empty where the proxy is the only way in.
    """
    ports = [split_address(each)[1] for each in (members.control, members.superlink)]
    own = [join_address(host, port) for host in own_addresses() for port in ports]
    # `verify=False`: a stranger does not care who answers.
    with httpx.Client(verify=False, timeout=TIMEOUT, trust_env=False) as stranger:  # noqa: S501
        return [
            target
            for target in dict.fromkeys([members.superlink, *own])
            if not loopback(split_address(target)[0])
            and any(
                _is_control(stranger, f"{scheme}://{target}{ASKED}")
                for scheme in ("https", "http")
            )
        ]


def open_to_all(found: list[str]) -> str:
    """Return what it means that :func:`open_addresses` found some."""
    return (
        f"the Control API answers everybody at {', '.join(found)}: whoever gets there "
        "can let devices in and submit code"
    )


def own_addresses() -> list[str]:
    """Return this machine's addresses that others may reach, IPv4 and global IPv6."""
    return [
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family in {socket.AF_INET, socket.AF_INET6}
        and "%" not in each.address  # link-local
        and not loopback(each.address)
    ]


def _is_control(stranger: httpx.Client, url: str) -> bool:
    # Flower refuses plain text in its own words, and knows its paths before that.
    try:
        answer = stranger.post(url, headers={"content-type": "text/plain"})
        return answer.status_code != 404 and "code" in answer.json()
    except (httpx.HTTPError, OSError, ValueError, TypeError):
        return False
