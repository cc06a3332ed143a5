"""What runs for a message in the place of Flower's ``flwr-clientapp``: it waits.

It hands its arguments to the resident process, which it starts if there is none, and
ends with the exit code of the message's own. A signal that ends this one ends that one,
too: its keeper sees the connection go. Nothing but the standard library is here, and
little of that: this is started for every message.
"""

import os
import socket
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing it takes as long as the rest
    from typing import NoReturn

FOLDER, KEEP_WARM = "EXPERTFLEET_RESIDENT", "EXPERTFLEET_KEEP_WARM"
"""Variables: the private folder of what is resident, and its seconds without work."""

NOTES = "EXPERTFLEET_NOTES"
"""Variable: the descriptor on which an app tells what the next message needs."""

SOCKET, LOCK, GIVEN_UP = "socket", "lock", "given-up"
"""Files of that folder; the last one is there when it was tried in vain."""

ROOT = os.path.abspath(__file__ + "/../../../..")

TRIES = 2
"""Starts of a resident process in a row that end without having begun a message."""

PACKET = 65536
"""Bytes that arguments may have."""

_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from client_app.device.resident.keeper import main; main(sys.argv[1:])"
)


def main(arguments: list[str]) -> int:
    """Have a message handled; return the exit code."""
    folder, parent = os.environ.get(FOLDER), _parent(arguments)
    # Without a parent there is nobody to end with.
    if folder and parent and not os.path.exists(f"{folder}/{GIVEN_UP}"):
        try:
            code = _handed_over(folder, parent, arguments)
            why = "it ended before it had begun with the message"
        except OSError as error:
            code, why = None, str(error)
        if code is not None:
            return code
        _give_up(folder, why)
    return _do_it_here(arguments)


def _do_it_here(arguments: list[str]) -> "NoReturn":
    """Become Flower's own program."""
    program = os.path.join(os.path.dirname(sys.executable), "flwr-clientapp")
    os.execv(program, [program, *arguments])


def _give_up(folder: str, why: str) -> None:
    print(
        f"no resident process to train in ({why}): one process a message until the "
        "SuperExec is started again",
        file=sys.stderr,
        flush=True,
    )
    with suppress(OSError), open(f"{folder}/{GIVEN_UP}", "w"):
        pass


def _parent(arguments: list[str]) -> str:
    """Return the process that Flower ends with, "" if it was not told."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--parent-pid":
            return following
    return ""


def _handed_over(folder: str, parent: str, arguments: list[str]) -> int | None:
    """Return the exit code; None if no resident process could begin."""
    started = 0
    while started < TRIES:
        connection, fresh = _connected(folder, parent)
        started += fresh
        with connection, suppress(ConnectionError):
            connection.send("\0".join(arguments).encode())
            if answer := connection.recv(PACKET):
                return _waited(connection, int(answer))
    return None


def _connected(folder: str, parent: str) -> tuple[socket.socket, bool]:
    """Return a connection, and whether a resident process was started for it."""
    import fcntl

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = f"{folder}/{SOCKET}"
    with open(f"{folder}/{LOCK}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            _start(folder, parent)
            connection.connect(path)
            return connection, True
    return connection, False


def _start(folder: str, parent: str) -> None:
    """Start a resident process; messages may queue before it has imported anything."""
    path = f"{folder}/{SOCKET}"
    with suppress(FileNotFoundError):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(64)
        if os.fork():
            return
        try:
            os.setsid()  # a terminal's Ctrl-C is for Flower, which passes it on
            listener.set_inheritable(True)
            given = [ROOT, folder, parent, str(listener.fileno())]
            os.execv(sys.executable, [sys.executable, "-P", "-c", _START, *given])
        finally:
            os._exit(127)


def _waited(connection: socket.socket, child: int) -> int:
    """Wait for the process of the message; return its exit code."""
    with suppress(ConnectionError):
        if answer := connection.recv(PACKET):
            return int(answer)
    # The resident process is gone. The message's own goes on, and nobody has its code.
    with suppress(ProcessLookupError):
        while True:
            os.kill(child, 0)
            time.sleep(0.2)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))  # the first one is the name it was called by
