"""A server and its devices in network namespaces of their own, with links between them.

A thread that is in the server's namespace sees nothing of the machine's network; what
it starts lives there as well. Each device has a namespace whose only way out is a pair
of virtual interfaces with a line rate at either end (``tc tbf``). Not every kernel has
``netem``: delay comes from :class:`Delay`, a TCP proxy before the server.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Queue

import pytest

_CLONE_NEWNET = 0x40000000

Late = Queue[tuple[float, bytes]]
"""What came, and when it is to go on; nothing is the end."""

MOST_PIECES = 64

RATE_BURST = 16_000
"""Bytes that may pass at once; tbf wants at least a packet."""


def skip_without_namespaces() -> None:
    """Skip where there are no namespaces to be had."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces are root's")
    for program in ("ip", "tc", "nsenter", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here (apt-get install iproute2 util-linux)")
    if subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("this machine allows no network namespaces")


@contextmanager
def own_network() -> Iterator[None]:
    """Put this thread, and what it starts, into a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/self/task/{threading.get_native_id()}/ns/net").open() as before:
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            _run("ip", "link", "set", "lo", "up")
            yield
        finally:
            if libc.setns(before.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


class Link:
    """The way between the server's namespace and that of one device.

    Parameters
    ----------
    number : int
        Of the device; the server is ``10.77.NUMBER.1`` to it.
    down, up : int
        Line rates in bits per second.
    stack : ExitStack
        Takes it down when it is closed.

    Attributes
    ----------
    server : str
        The server's address on this link.
    enter : list of str
        What a command begins with that is to run on the device.
    """

    def __init__(self, number: int, down: int, up: int, stack: ExitStack) -> None:
        self.server = f"10.77.{number}.1"
        self._here, there = f"down{number}", f"up{number}"
        # It ends with this process, however that ends: its input is closed then.
        holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        stack.callback(holder.wait)
        stack.callback(holder.kill)
        self.enter = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        mine = _network("thread-self")
        while _network(holder.pid) == mine:
            time.sleep(0.01)
        pair = ["link", "add", self._here, "type", "veth", "peer", "name", there]
        _run("ip", *pair, "netns", str(holder.pid))
        stack.callback(subprocess.run, ["ip", "link", "delete", self._here])
        _run("ip", "address", "add", f"{self.server}/24", "dev", self._here)
        _run("ip", "link", "set", self._here, "up")
        _run(*self.enter, "ip", "link", "set", "lo", "up")
        own = f"10.77.{number}.2/24"
        _run(*self.enter, "ip", "address", "add", own, "dev", there)
        _run(*self.enter, "ip", "link", "set", there, "up")
        _shape([], self._here, down)
        _shape(self.enter, there, up)

    def cut(self) -> None:
        """Lose every packet from now on."""
        _run("ip", "link", "set", self._here, "down")

    def mend(self) -> None:
        """Let packets through again."""
        _run("ip", "link", "set", self._here, "up")

    def carried(self) -> tuple[int, int]:
        """Return the bytes that went down to the device and came up from it."""
        counts = Path("/proc/thread-self/net/dev").read_text().split(f"{self._here}:")
        numbers = [int(word) for word in counts[1].split("\n")[0].split()]
        return numbers[8], numbers[0]


def _shape(enter: list[str], device: str, rate: int) -> None:
    queue = ["qdisc", "add", "dev", device, "root", "tbf", "rate", f"{rate}bit"]
    _run(*enter, "tc", *queue, "burst", str(RATE_BURST), "latency", "400ms")


def _network(process: object) -> int:
    return Path(f"/proc/{process}/ns/net").stat().st_ino


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Delay:
    """A TCP proxy that passes every byte on a fixed time after it came, both ways.

    Parameters
    ----------
    listen, target : tuple of str and int
        Address and port.
    seconds : float
        One way.
    stack : ExitStack
        Ends it when it is closed.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        target: tuple[str, int],
        seconds: float,
        stack: ExitStack,
    ) -> None:
        self._target, self._seconds = target, seconds
        self._door = stack.enter_context(socket.create_server(listen))
        # A thread is in the network of who starts it; it ends with the sockets.
        threading.Thread(target=self._serve, daemon=True).start()
        stack.callback(self._door.shutdown, socket.SHUT_RDWR)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:  # as a port that nobody listens at
                    client.close()
                    continue
                for ends in ((client, server), (server, client)):
                    late: Late = Queue(MOST_PIECES)
                    for work in (self._take, self._pass_on):
                        arguments = (*ends, late)
                        thread = threading.Thread(target=work, args=arguments)
                        thread.daemon = True
                        thread.start()

    def _take(self, of: socket.socket, to: socket.socket, late: "Late") -> None:
        data = b"?"
        while data:
            try:
                data = of.recv(1 << 16)
            except OSError:
                data = b""
            late.put((time.monotonic() + self._seconds, data))

    def _pass_on(self, of: socket.socket, to: socket.socket, late: "Late") -> None:
        with suppress(OSError):
            while True:
                due, data = late.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    to.shutdown(socket.SHUT_WR)
                    return
                to.sendall(data)
