"""The processes of one run: found, stopped, and never left behind.

Flower starts its SuperExec in a session of its own, Ray retitles its workers (which
wipes their environment), and a dead parent orphans both. So membership is decided in
two steps: whoever carries this run's ``FLWR_HOME`` belongs to it, and so does everyone
in a session that such a process lives in.

Run as a script this file is the guard of a launcher: it waits for its standard input to
close, which happens even when the launcher is killed with SIGKILL, and cleans up.
Flower alone would not: what it starts watches its parent, but only interrupts itself,
and a simulation in the middle of a round trains on, with Ray, for nobody.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

#: Unix socket paths end at 104 bytes (macOS); Ray's need about 70 below the directory.
_LONGEST_TEMP_DIR = 20


class Sandbox:
    """A private directory and every process that runs in it.

    Entering creates ``home`` (FLWR_HOME), ``work`` (a neutral working directory) and a
    guard process; leaving stops every member and removes the directory.

    Attributes
    ----------
    root, home, work : Path
        The temporary directory, and its two parts.
    env : dict[str, str]
        Environment of every process of the run.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        base = tempfile.gettempdir()
        if len(base) > _LONGEST_TEMP_DIR and os.access("/tmp", os.W_OK):  # noqa: S108
            base = "/tmp"  # noqa: S108 # mkdtemp makes it private
        self.root = Path(tempfile.mkdtemp(prefix="fleet-", dir=base))
        self.home, self.work = self.root / "home", self.root / "work"
        self.env = {**env, "FLWR_HOME": str(self.home), "RAY_TMPDIR": str(self.root)}
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.home.mkdir()
        self.work.mkdir()
        self._guard = subprocess.Popen(
            # -P: the modules beside this file are no top-level modules.
            [sys.executable, "-P", __file__, str(self.root)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        clean_up(self.root)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait(timeout=30)

    def start(
        self,
        command: list[str],
        output: int | None = None,
        stderr: int = subprocess.STDOUT,
        **env: str,
    ) -> subprocess.Popen[str]:
        """Start a process of the run in the neutral directory and its own session.

        Parameters
        ----------
        command : list[str]
            Program and arguments.
        output : int, optional
            File descriptor, or ``subprocess.PIPE``, for stdout.
        stderr : int
            The same for standard error; together with stdout by default.
        **env : str
            Additions to the environment.
        """
        return subprocess.Popen(
            command,
            cwd=self.work,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
            # A terminal's Ctrl-C must reach the launcher alone: it decides the order.
            start_new_session=True,
        )


def members(home: Path) -> list[psutil.Process]:
    """Return the living processes that belong to the run with this FLWR_HOME."""
    sessions: dict[int, list[psutil.Process]] = {}
    ours: set[int] = set()
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            session = os.getsid(process.pid)
            sessions.setdefault(session, []).append(process)
            if process.environ().get("FLWR_HOME") == str(home):
                ours.add(session)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or not ours to look at
    # Never the caller's own session, whatever environment it was started with.
    ours -= {os.getsid(0)}
    return [process for session in ours for process in sessions[session]]


def clean_up(root: Path, grace: float = 4.0, limit: float = 20.0) -> None:
    """Stop every process of the run and remove its directory.

    Parameters
    ----------
    root : Path
        The sandbox's directory.
    grace : float
        Seconds between the polite signal and the final one.
    limit : float
        Seconds after which the rest is given up (a process stuck in the kernel).
    """
    start = time.monotonic()
    known: dict[int, psutil.Process] = {}
    while time.monotonic() - start < limit:
        # Once the last process with a readable environment is gone the others could
        # not be found any more: what was seen once is remembered.
        known.update({process.pid: process for process in members(root / "home")})
        known = {pid: process for pid, process in known.items() if _alive(process)}
        if not known:
            break
        polite = time.monotonic() - start < grace
        for process in known.values():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGTERM if polite else signal.SIGKILL)
        psutil.wait_procs(list(known.values()), timeout=0.5)
    shutil.rmtree(root, ignore_errors=True)


def _alive(process: psutil.Process) -> bool:
    try:
        # is_running() compares creation times, so a reused pid is not mistaken.
        running: bool = process.is_running()
        return running and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


if __name__ == "__main__":
    sys.stdin.buffer.read()
    if Path(sys.argv[1]).is_dir():
        clean_up(Path(sys.argv[1]))
