"""What the benchmarks count, by hand."""

import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from benchmarks.cpu_meter import CpuMeter
from benchmarks.switching_cost import moves


def test_moves_are_the_pairs_a_round_adds() -> None:
    rounds = [
        [[1, 1, 0], [0, 0, 1]],
        [[1, 0, 1], [0, 0, 1]],  # client 0 gets expert 2
        [[1, 0, 1], [1, 1, 0]],  # client 1 gets experts 0 and 1
    ]
    assert moves(np.array(rounds, dtype=bool)) == 1.5


def test_the_meter_does_not_count_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # This process has spent 10 s, 4 of them in the meter; what it started, 3 s.
    def process(pid: int, seconds: float, *children: object) -> SimpleNamespace:
        return SimpleNamespace(
            pid=pid,
            cpu_times=lambda: SimpleNamespace(user=seconds - 1, system=1.0),
            children=lambda recursive: list(children),
        )

    me = process(1, 10.0, process(2, 3.0))
    monkeypatch.setattr(psutil, "Process", lambda pid: me)
    monkeypatch.setattr(time, "thread_time", lambda: 4.0)
    with CpuMeter(period=0) as meter:
        pass
    assert meter.at([time.time()]) == [9.0]
