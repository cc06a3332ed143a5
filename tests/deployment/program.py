"""A program on a machine of its own: its sandbox, its log, and the ways it can end.

It has its own ``FLWR_HOME``: killing it takes everything it started along, and nothing
of the others. Which programs make a fleet is said in ``tests.deployment.fleet``.
"""

import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from server_app.launcher.processes import Sandbox, members
from server_app.launcher.superlink import flower_environment

PATIENCE = 600.0
"""Seconds after which anything awaited is taken for lost, on a busy machine."""


class Program:
    """One program of the fleet.

    Parameters
    ----------
    name : str
    command : sequence of str
    stack : ExitStack
        Stops the program and removes its directory when it is closed.
    """

    def __init__(self, name: str, command: Sequence[str], stack: ExitStack) -> None:
        self.name = name
        self.command = list(command)
        self._sandbox = stack.enter_context(Sandbox(flower_environment()))
        self._log = self._sandbox.root / "log"
        self._process: subprocess.Popen[str] | None = None
        stack.callback(self.kill)

    @property
    def home(self) -> Path:
        """Its FLWR_HOME."""
        return self._sandbox.home

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, again if need be; its log goes on."""
        with self._log.open("a") as file:
            self._process = self._sandbox.start(self.command, file.fileno())

    def run(self, *arguments: str) -> str:
        """Run its command with further arguments to the end; return what it prints."""
        process = self._sandbox.start([*self.command, *arguments], subprocess.PIPE)
        text, _ = process.communicate(timeout=PATIENCE)
        return text

    def interrupt(self) -> None:
        """Press Ctrl-C in its terminal, and wait until it has ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=60)

    def stop(self) -> None:
        """Ask it to end, as a service manager does, and wait until it has."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=60)

    def kill(self) -> None:
        """SIGKILL it and everything it started."""
        processes = members(self.home)
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=60)
        if self._process is not None:
            self._process.wait(timeout=60)

    def part(self, word: str) -> list[psutil.Process]:
        """Return those it started that have a word in what started them."""
        found = []
        for process in members(self.home):
            with suppress(psutil.Error):
                if any(word in each for each in process.cmdline()):
                    found.append(process)
        return found

    def suspend(self) -> None:
        """Stop it and everything it started where they are, until :meth:`resume`."""
        for process in members(self.home):
            process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        for process in members(self.home):
            process.resume()

    def has(self, program: str) -> bool:
        """Whether a program with this name is among what it started."""
        for process in members(self.home):
            with suppress(psutil.Error):
                if any(Path(word).name == program for word in process.cmdline()[:4]):
                    return True
        return False

    def log(self) -> str:
        """Everything it has printed."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def tail(self, lines: int = 12) -> str:
        """Its state and the end of its log."""
        state = "running"
        if self._process is None:
            state = "not started"
        elif not self.running:
            state = f"ended with {self._process.returncode}"
        end = "\n".join(self.log().splitlines()[-lines:])
        return f"--- {self.name} ({state}):\n{end}"
