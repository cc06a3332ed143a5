"""Programs that take turns on one machine, so that its moods hit all alike.

Where a machine's speed drifts within minutes, programs that run one after the other ran
on different machines. Here each runs for some seconds while the others are stopped,
with everything they started, and a stopped program's clock stands still.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
import psutil

T = TypeVar("T")


class Clock:
    """What a program has used until any moment: seconds of its turns and of CPUs."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self._used: list[tuple[float, float]] = []

    def note(self, started: float, ended: float, cpu: float) -> None:
        """Add a turn.

        Parameters
        ----------
        started, ended : float
            ``time.time()``, later than the turn before.
        cpu : float
            CPU seconds of the whole program until the end of this turn.
        """
        seconds, before = self._used[-1] if self._used else (0.0, 0.0)
        self._moments += [started, ended]
        self._used += [(seconds, before), (seconds + ended - started, cpu)]

    def between(self, moments: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return the seconds and the CPU seconds used between neighbours.

        Parameters
        ----------
        moments : sequence of float
            ``time.time()``, each within a turn.
        """
        seconds, cpu = (
            [float(b - a) for a, b in pairwise(np.interp(moments, self._moments, used))]
            for used in zip(*self._used, strict=True)
        )
        return seconds, cpu


class Contender:
    """A process that runs only in its turns, and what it starts.

    Parameters
    ----------
    target : callable
        Importable by name, as are its arguments: it runs in a fresh interpreter.
    """

    def __init__(self, target: Callable[..., object], *args: Any) -> None:
        self.clock = Clock()
        self._process = get_context("spawn").Process(
            target=_in_own_session, args=(target, *args)
        )

    def turn(self, seconds: float) -> bool:
        """Let it run for so long; return whether it goes on after that.

        Raises
        ------
        RuntimeError
            When it failed.
        """
        stopped = self._tree()
        started = time.time()
        self._resume(stopped)
        self._process.join(seconds)
        if self._process.exitcode is None:
            ended = self._suspend()
            self.clock.note(started, ended, sum(_each(self._tree(), _cpu)))
        elif self._process.exitcode:
            raise RuntimeError(f"a contender ended with {self._process.exitcode}")
        return self._process.exitcode is None

    def close(self) -> None:
        """End it and what it started, wherever they are."""
        if self._process.pid is None or self._process.exitcode is not None:
            return
        processes = self._tree()
        self._resume(processes)
        self._process.terminate()
        self._process.join()
        _each(processes, psutil.Process.kill)

    def _resume(self, stopped: list[psutil.Process]) -> None:
        if not stopped:
            self._process.start()
        _each(stopped, psutil.Process.resume)

    def _suspend(self) -> float:
        """Stop all of it; return when the first round of stopping was over."""
        stopped: set[psutil.Process] = set()
        ended = 0.0
        while new := set(self._tree()) - stopped:  # started while others were stopped
            _each(new, psutil.Process.suspend)
            ended = ended or time.time()
            stopped |= new
        return ended

    def _tree(self) -> list[psutil.Process]:
        if self._process.pid is None:
            return []
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]


def take_turns(contenders: Sequence[Contender], seconds: float) -> None:
    """Run all to their ends, one at a time.

    Raises
    ------
    RuntimeError
        When one failed; the others are ended.
    """
    running = list(contenders)
    try:
        while running:
            running = [one for one in running if one.turn(seconds)]
    finally:
        for one in running:
            one.close()


def _in_own_session(target: Callable[..., object], *args: Any) -> None:
    os.setsid()  # Ctrl-C is for the one who gives the turns, and ends the contenders
    target(*args)


def _each(
    processes: Iterable[psutil.Process], action: Callable[[psutil.Process], T]
) -> list[T]:
    """Return what the action answers for each that is still there."""
    answers = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            answers.append(action(process))
    return answers


def _cpu(process: psutil.Process) -> float:
    """Return its CPU seconds and those of what it started and what has ended."""
    return float(sum(process.cpu_times()[:4]))
