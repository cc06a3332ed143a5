"""The resident process: it has imported Flower and torch, and forks for each message.

One thread and one loop; whatever is waited for is a file descriptor. It forks a message
from the template of the run if that is ready, else from itself: nobody waits for one.
Who is who is said in the package.
"""

import ctypes
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from client_app.device.resident.forks import (
    Forked,
    Role,
    be_message,
    be_template,
    received,
    say,
    settle,
    threads,
)
from client_app.device.resident.hand_over import KEEP_WARM, LOCK, SOCKET

GRACE = 10.0
"""Seconds for a message that is to end; Flower gives itself five."""

TRIES = 2
"""Templates in a row that fail before a run goes on without."""

_TEMPLATE_PATIENCE = 10.0
_NOTE_BYTES = 2**20
_SUBREAPER = 36  # Linux's <sys/prctl.h>


def main(arguments: list[str]) -> None:
    """Serve messages until the parent ends or none comes."""
    root, folder, parent, listener = arguments
    ends_with = os.pidfd_open(int(parent))  # before it can be another's number
    flower = _import_everything(root)
    keep(folder, int(listener), ends_with, flower)


def keep(folder: str, listener: int, parent: int, flower: Role) -> None:
    """Run the loop, and in its forks whatever they are to be; see :class:`Keeper`."""
    keeper = Keeper(folder, socket.socket(fileno=listener), parent, flower=flower)
    role: Role | None = keeper.serve
    while role is not None:
        try:
            role()
            return
        except Forked as fork:
            role = fork.role


def _import_everything(root: str) -> Role:
    """Return Flower's program; leave no module of ours for an app to find."""
    import torch  # noqa: F401

    [found] = entry_points(group="console_scripts", name="flwr-clientapp")
    program = found.load()
    sys.path.remove(root)
    sys.path.insert(0, os.path.dirname(sys.executable))  # as for any program there
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("client_app", "common"):
            del sys.modules[name]
    settle()
    return program


class Keeper:
    """The loop of the resident process.

    Parameters
    ----------
    folder : str
        Its private folder.
    listener : socket
        Where messages come in.
    parent : int
        Descriptor of the process it ends with.
    flower : callable
        What a message's process runs.
    """

    def __init__(
        self, folder: str, listener: socket.socket, parent: int, *, flower: Role
    ) -> None:
        self._folder = folder
        self._flower = flower
        self._keep_warm = float(os.environ.get(KEEP_WARM, "inf"))
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, socket.socket] = {}  # by process
        self._killed_at: dict[int, float] = {}
        self._told: dict[str, Any] = {}
        self._teller = 0
        self._template: tuple[int, socket.socket] | None = None
        self._ready = False
        self._failures = 0
        self._stopped = False
        self._busy_at = time.monotonic()
        self._listener = listener
        self._hears, self._says = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        self._watch(listener, self._accept)
        self._watch(self._hears, self._note)
        self._watch(parent, self._stop)
        # What a template forks twice becomes a child of this process.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)

    def _watch(self, file: int | socket.socket, then: Role) -> None:
        self._selector.register(file, selectors.EVENT_READ, then)

    def serve(self) -> None:
        """Serve until the parent is gone, or nothing has come for a while."""
        while not self._stopped:
            for key, _ in self._selector.select(self._patience()):
                # An earlier one of these may have closed it.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            now = time.monotonic()
            for pid, when in self._killed_at.items():
                if now >= when:
                    os.kill(pid, signal.SIGKILL)
            if self._idle() >= self._keep_warm:
                self._end_if_nobody_comes()

    def _idle(self) -> float:
        return 0.0 if self._connections else time.monotonic() - self._busy_at

    def _patience(self) -> float | None:
        if self._killed_at:
            return max(0.0, min(self._killed_at.values()) - time.monotonic())
        if self._connections or self._keep_warm == float("inf"):
            return None
        return max(0.0, self._keep_warm - self._idle())

    def _stop(self) -> None:
        self._stopped = True
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_if_nobody_comes(self) -> None:
        with open(f"{self._folder}/{LOCK}", "w") as lock:
            try:  # nobody can connect who does not hold it
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if not self._selector.select(0):
                self._stopped = True
                os.unlink(f"{self._folder}/{SOCKET}")

    # ------------------------------------------------------------------ messages

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._watch(connection, partial(self._begin, connection))

    def _begin(self, connection: socket.socket) -> None:
        packet = received(connection)
        if not packet:
            self._selector.unregister(connection)
            connection.close()
            return
        arguments = packet.decode().split("\0")
        pid = self._forked_by_template(packet) or self._fork(
            partial(be_message, self._flower, arguments, self._says, None)
        )
        self._connections[pid] = connection
        abandoned = partial(self._abandoned, pid, connection)
        self._selector.modify(connection, selectors.EVENT_READ, abandoned)
        process = os.pidfd_open(pid)
        self._watch(process, partial(self._ended, pid, process))
        with suppress(OSError):  # then it has gone, which is seen next
            connection.send(str(pid).encode())

    def _fork(self, role: Role) -> int:
        if pid := os.fork():
            return pid
        # Whoever waits for this process to end or to let go waits for its parent.
        for key in [*self._selector.get_map().values()]:
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            else:
                os.close(key.fd)
        self._selector.close()
        raise Forked(role)

    def _abandoned(self, pid: int, connection: socket.socket) -> None:
        """End a message whose program has ended: whoever ended that meant this."""
        self._selector.unregister(connection)
        os.kill(pid, signal.SIGTERM)
        self._killed_at[pid] = time.monotonic() + GRACE

    def _ended(self, pid: int, process: int) -> None:
        self._selector.unregister(process)
        os.close(process)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        connection = self._connections.pop(pid)
        if self._killed_at.pop(pid, None) is None:
            self._selector.unregister(connection)
            if code < 0:
                name = signal.Signals(-code).name
                why = ", out of memory?" if code == -signal.SIGKILL else ""
                say(f"the process of a message was ended by {name}{why}")
            with suppress(OSError):
                connection.send(str(code if code >= 0 else 128 - code).encode())
        connection.close()
        self._busy_at = time.monotonic()
        # Not while a message is at work, which would have to share the processor.
        if pid == self._teller or (self._told and not self._template):
            self._start_template()

    # ------------------------------------------------------------------ the template

    def _note(self) -> None:
        try:
            note = json.loads(self._hears.recv(_NOTE_BYTES))
            pid, told = int(note["pid"]), dict(note["told"])
        except (ValueError, TypeError, KeyError):
            return
        if told != self._told and pid in self._connections:
            if told.get("run") != self._told.get("run"):
                self._end_template()
            self._told, self._teller, self._failures = told, pid, 0

    def _start_template(self) -> None:
        self._teller = 0
        self._end_template()
        if self._failures >= TRIES:
            return
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        role = partial(
            be_template, self._flower, self._told, its, self._says, threads()
        )
        try:
            pid = self._fork(role)
        except Forked:
            ours.close()
            raise
        its.close()
        ours.settimeout(_TEMPLATE_PATIENCE)
        self._template, self._ready = (pid, ours), False
        self._watch(ours, self._hear_template)

    def _hear_template(self) -> None:
        assert self._template is not None
        if received(self._template[1]):
            self._ready = True
        else:
            self._lose_template()

    def _forked_by_template(self, packet: bytes) -> int:
        """Return the message's process, 0 if there is no template or it fails."""
        if self._template is None or not self._ready:
            return 0
        with suppress(OSError):
            self._template[1].send(packet)
            if answer := received(self._template[1]):
                self._failures = 0
                return int(answer)
        self._lose_template()
        return 0

    def _lose_template(self) -> None:
        self._failures += 1
        if self._failures == TRIES:
            say("what a run needs cannot be kept ready: imported for each message")
        self._end_template()

    def _end_template(self) -> None:
        if self._template is not None:
            pid, channel = self._template
            self._selector.unregister(channel)
            channel.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._template = None
