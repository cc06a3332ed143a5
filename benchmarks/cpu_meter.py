"""CPU seconds of this process and all it started, at any moment: for busy machines.

Wall-clock times of two programs that run one after the other do not compare when others
use the same cores meanwhile. What they computed does. Looking through the table of
processes takes time of its own, which is left out.
"""

import os
import time
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

import numpy as np
import psutil


class CpuMeter:
    """Samples the CPU time of a process tree in the background; a context manager."""

    def __init__(self, period: float = 0.1) -> None:
        self._period = period
        self._stop = Event()
        self._thread = Thread(target=self._sample, daemon=True)
        self._times: list[float] = []
        self._seconds: list[float] = []

    def __enter__(self) -> Self:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()

    def at(self, moments: list[float]) -> list[float]:
        """Return the CPU seconds spent until each moment (``time.time()``)."""
        return [float(v) for v in np.interp(moments, self._times, self._seconds)]

    def _sample(self) -> None:
        spent: dict[int, float] = {}
        me = psutil.Process(os.getpid())
        stopped = False
        while not stopped:  # and once more at the end
            stopped = self._stop.wait(self._period)
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.Error):  # it has ended: what it spent stays
                    times = process.cpu_times()
                    spent[process.pid] = times.user + times.system
            self._times.append(time.time())
            self._seconds.append(sum(spent.values()) - time.thread_time())
