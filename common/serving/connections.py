"""Connections: how many there may be, and which are closed when there are too many.

gRPC accepts connections by itself and bounds only their number, so that whoever opens
enough of them and says nothing locks out everybody else. The files of this process show
all of them (Linux); shutting one down is for gRPC as if the caller had gone.
"""

import contextlib
import os
import resource
import socket
import stat
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote

MOST = 1024
SPARE_FILES = 64
"""Kept for models, lists and what else the process opens."""

Address = tuple[str, int]
_FILES = Path("/proc/self/fd")


def raise_file_limit() -> int:
    """Raise the limit of open files as far as allowed, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST * 64 if limit == resource.RLIM_INFINITY else limit


def most_connections(files: int) -> int:
    """Return how many connections fit into a limit of open files."""
    opened = len(_descriptors()) or SPARE_FILES
    return max(16, min(MOST, files - opened - SPARE_FILES))


def _descriptors() -> list[int]:
    """Return the numbers of this process's open files; none where it is not Linux."""
    try:
        return [int(path.name) for path in _FILES.iterdir()]
    except OSError:
        return []


class Connections:
    """The connections to one port.

    Parameters
    ----------
    port : int
    most : int
        More than half as many, and those in use least are closed.
    """

    def __init__(self, port: int, most: int) -> None:
        self._port, self._room = port, most // 2
        self._seen: dict[int, tuple[int, Address | None]] = {}
        self._ages: dict[Address, int] = {}
        self._sweeps = 0

    def sweep(self, known: set[str], busy: Collection[str]) -> None:
        """Close connections until half of those allowed are open.

        First those that never had a call, then those without one now; of these, first
        those of the address with the most of them, the oldest first. One that has a
        call under way stays open.

        Parameters
        ----------
        known, busy : collection of str
            Connections that had calls, and that have some now, as gRPC writes them.
            Forgets those of ``known`` that have gone.
        """
        if not known and len(_descriptors()) <= self._room:
            return
        found = self._open()
        self._sweeps += 1
        self._ages = {a: self._ages.get(a, self._sweeps) for a in found}
        peers = {peer: _address(peer) for peer in known}
        known.intersection_update(p for p, address in peers.items() if address in found)
        if len(found) <= self._room:
            return
        used = {peers[peer] for peer in known}
        working = {_address(peer) for peer in busy}
        hosts = Counter(host for host, _ in found)
        idle = sorted(
            (a for a in found if a not in working),
            key=lambda a: (a in used, -hosts[a[0]], self._ages[a], found[a]),
        )
        for address in idle[: len(found) - self._room]:
            self._shut(address, found[address])

    def cut(self, peer: str) -> None:
        """Close one connection."""
        address = _address(peer)
        if (descriptor := self._open().get(address)) is not None:
            self._shut(address, descriptor)

    def _open(self) -> dict[Address, int]:
        """Return the descriptors of all connections by the address of the caller."""
        before, self._seen = self._seen, {}
        for descriptor in _descriptors():
            with contextlib.suppress(OSError):  # closed meanwhile
                status = os.fstat(descriptor)
                if stat.S_ISSOCK(status.st_mode):
                    known = before.get(descriptor)
                    if known is None or known[0] != status.st_ino:
                        known = status.st_ino, self._caller(descriptor)
                    self._seen[descriptor] = known
        return {caller: d for d, (_, caller) in self._seen.items() if caller}

    def _caller(self, descriptor: int) -> Address | None:
        with contextlib.suppress(OSError), _borrowed(descriptor) as other:
            internet = other.family in (socket.AF_INET, socket.AF_INET6)
            if internet and other.getsockname()[1] == self._port:
                return _caller(other)
        return None

    def _shut(self, address: Address, descriptor: int) -> None:
        with contextlib.suppress(OSError), _borrowed(descriptor) as other:
            # The number may mean another file by now.
            if _caller(other) == address:
                other.shutdown(socket.SHUT_RDWR)


def _borrowed(descriptor: int) -> socket.socket:
    """Return a socket of one's own for the same connection."""
    return socket.socket(fileno=os.dup(descriptor))


def _caller(connection: socket.socket) -> Address:
    host, port = connection.getpeername()[:2]
    return host.removeprefix("::ffff:"), port


def _address(peer: str) -> Address:
    """Split ``ipv6:%5B::1%5D:50000``."""
    host, _, port = unquote(peer.partition(":")[2]).rpartition(":")
    return host.strip("[]").removeprefix("::ffff:"), int(port)
