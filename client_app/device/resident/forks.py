"""What the forks of the resident process are: the template of a run, and a message."""

import gc
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from client_app.device.resident.hand_over import NOTES, PACKET
from client_app.device.resident.preloaded_app import PreloadedApp

_KILLED_FIRST = 500  # of 1000: what trains, and not what the next message needs

Role = Callable[[], None]


class Forked(BaseException):
    """Raised in a fork, to leave everything that its parent was at.

    Attributes
    ----------
    role : callable
        What the fork is from then on.
    """

    def __init__(self, role: Role) -> None:
        self.role = role


def be_template(
    flower: Role,
    told: dict[str, Any],
    channel: socket.socket,
    says: socket.socket,
    most_threads: int,
) -> None:
    """Import an app and read its data; then fork a message whenever told to.

    A thread would be missing in a fork, with what it held locked. Those of OpenBLAS,
    which are there from the import on, come back by themselves.
    """
    app = PreloadedApp(told)
    settle()
    if (left := threads()) > most_threads:
        say(f"not kept ready: reading the data has left {left} threads running")
        return
    channel.send(b"ready")
    while packet := received(channel):
        role = partial(be_message, flower, packet.decode().split("\0"), says, app)
        reads, writes = os.pipe()
        if not (middle := os.fork()):
            os.close(reads)
            channel.close()
            if pid := os.fork():
                os.write(writes, str(pid).encode())
                os._exit(0)
            os.close(writes)
            raise Forked(role)
        os.close(writes)
        os.waitpid(middle, 0)  # from here on it is the resident process's
        with open(reads, "rb") as answer:
            channel.send(answer.read())


def be_message(
    flower: Role,
    arguments: list[str],
    says: socket.socket,
    app: PreloadedApp | None,
) -> None:
    """Be what Flower's program would be, started for one message."""
    import numpy as np

    np.random.seed()  # else all messages draw the same where nobody has seeded
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(_KILLED_FIRST))
    os.environ[NOTES] = str(says.fileno())
    if app is not None:
        sys.meta_path.insert(0, app)
    sys.argv = ["flwr-clientapp", *arguments]
    flower()


def settle() -> None:
    """Keep the garbage collector of forks from writing to what they share."""
    gc.collect()
    gc.freeze()


def threads() -> int:
    """Return how many this process has, those of libraries included."""
    return len(os.listdir("/proc/self/task"))


def received(channel: socket.socket) -> bytes:
    """Return a packet; empty if the other side is gone or does not answer."""
    try:
        return channel.recv(PACKET)
    except OSError:
        return b""


def say(text: str) -> None:
    """Say it in the device's log."""
    print(text, file=sys.stderr, flush=True)
