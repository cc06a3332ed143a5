"""Contenders that take turns: clocks by hand, and real processes."""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.turns import Clock, Contender, take_turns


def test_a_clock_stands_still_between_turns() -> None:
    clock = Clock()
    clock.note(100.0, 102.0, 3.0)  # two seconds on a core and a half
    clock.note(110.0, 114.0, 7.0)  # and four on one
    seconds, cpu = clock.between([101.0, 111.0, 114.0])
    assert seconds == pytest.approx([2.0, 3.0])
    assert cpu == pytest.approx([2.5, 3.0])


def ticking(path: Path, ticks: int) -> None:
    """Start a program that ticks, and tick beside it."""
    child = subprocess.Popen(
        [sys.executable, "-c", TICK.format(path=str(path) + ".child", ticks=ticks)]
    )
    exec(TICK.format(path=str(path), ticks=ticks))
    child.wait()


def ticking_before_and_after(path: Path, ticks: int, other: Path) -> None:
    """Tick, and once more when the other one has begun."""
    ticking(path, ticks)
    while not other.exists():
        time.sleep(0.02)
    ticking(path, ticks)


TICK = """
import time
with open({path!r}, "a", buffering=1) as file:
    for _ in range({ticks}):
        print(time.time(), file=file)
        time.sleep(0.02)
"""


def test_contenders_never_run_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    contenders = [
        Contender(ticking_before_and_after, first, 60, second),
        Contender(ticking, second, 120),
    ]
    take_turns(contenders, 0.4)
    moments = []
    for name in ("first", "second"):
        for file in (tmp_path / name, tmp_path / f"{name}.child"):
            ticks = [float(line) for line in file.read_text().split()]
            assert len(ticks) == 120
            moments += [(tick, name) for tick in ticks]
    order = [name for _, name in sorted(moments)]
    changes = sum(a != b for a, b in pairwise(order))
    # A program ticks for 2.4 s at least, six turns, or two where turns are stretched by
    # what else runs; one after the other they would not end, at once change 200 times.
    assert 2 <= changes <= 60


def failing(other: Path) -> None:
    """End with a code of one's own, as soon as the other one is at work."""
    while not other.exists():
        time.sleep(0.02)
    raise SystemExit(3)


def test_a_contender_that_fails_ends_the_others(tmp_path: Path) -> None:
    endless = Contender(ticking, tmp_path / "endless", 10**6)
    tick = tmp_path / "endless.child"
    with pytest.raises(RuntimeError, match="ended with 3"):
        take_turns([endless, Contender(failing, tick)], 1.0)
    before = tick.stat().st_size
    time.sleep(0.2)
    assert tick.stat().st_size == before
