"""Flower's SuperExec of a device, which starts a process for each order: it may end.

A SuperNode of Flower 1.41 that has lost it fetches orders on, and waits for ever.
"""

import subprocess
from collections.abc import Sequence


class SuperExecEndedError(Exception):
    """No order would be worked on any more."""


class SuperExec:
    """The process that starts one for each order, where the SuperNode has its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start it."""
        self._process = subprocess.Popen(command)
        return self._process

    def check(self) -> None:
        """Raise SuperExecEndedError if it has been started and has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise SuperExecEndedError("the SuperExec has ended")


SUPEREXEC = SuperExec()
"""Of this process."""
