"""Windows of sensor readings, cut from recordings.

A recording is a run of rows of one class, one group and one file. A window begins every
``step`` readings; windows that overlap are near copies, so those of one recording stay
together unless the task names a column to group by. What is left at a recording's end
is no window.

Not here: files (``columns``, ``lines``, ``saved``, ``wav``).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.own.cells import MIXED_SIGNS, Rows, RowSource, mixed_signs, numbers_of
from common.own.found import Found, Skipped, no_group
from common.own.tables import facts_of
from common.task import SeriesTask


def row_windows(
    source: RowSource, task: SeriesTask, *, labelled: bool
) -> Iterator[Found | Skipped]:
    """Yield the windows of a file of readings, one a row, in the order of time.

    A row with a cell that is no number ends its recording; the next begins a new one.

    Raises
    ------
    DataError
        If a column is missing.
    """
    extras = source.extras(task, labelled, task.channels)
    running: _Recording | None = None
    for rows in source.read(list(dict.fromkeys([*task.channels, *extras]))):
        if isinstance(rows, Skipped):
            yield rows
            continue
        x, bad = _readings(rows, task, source.comma)
        facts: list[Any] = [
            bad.get(at) or facts_of(source, rows, at, task, labelled=labelled)
            for at in range(len(rows.numbers))
        ]
        for same, places in groupby(range(len(facts)), key=facts.__getitem__):
            run = list(places)
            numbers = [rows.numbers[at] for at in run]
            if running is None or running.facts != same:
                yield from running.end() if running else ()
                running = _Recording(source, task, same, numbers[0])
            yield from running.add(x[run], numbers)
    yield from running.end() if running else ()


def _readings(
    rows: Rows, task: SeriesTask, comma: bool
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Return readings, shape (rows, channels), and why rows hold none."""
    x = np.empty((len(rows.numbers), len(task.channels)), np.float32)
    bad: dict[int, str] = {}
    for place, name in enumerate(task.channels):
        x[:, place], wrong = numbers_of(rows.cells[name], comma)
        for row, reason in wrong.items():
            bad.setdefault(row, f"{name}: {reason}")
    if comma:
        cells = (rows.cells[name] for name in task.channels)
        bad |= dict.fromkeys(mixed_signs(cells), MIXED_SIGNS)
    return x, bad


class _Recording:
    """Readings that follow one another; only what windows still need is kept.

    Attributes
    ----------
    facts : dict or str
        Label, group and test of all its rows, or why they are no samples.
    """

    def __init__(
        self, source: RowSource, task: SeriesTask, facts: Any, first: int
    ) -> None:
        self.source, self.task, self.facts = source, task, facts
        self.name = f"{source.name}#{first}"
        self._rows = np.empty((0, len(task.channels)), np.float32)
        self._numbers: list[int] = []
        self._next = 0  # where the next window begins
        self._seen = self._cut = 0

    def add(self, x: NDArray[np.float32], numbers: Sequence[int]) -> Iterator[Found]:
        """Take more readings, shape (rows, channels); yield the windows they fill."""
        self._seen += len(x)
        if isinstance(self.facts, str):
            return
        self._rows = np.concatenate([self._rows, x])
        self._numbers += numbers
        while self._next + self.task.length <= len(self._rows):
            window = self._rows[self._next : self._next + self.task.length]
            # A copy: what is yielded does not keep the recording in memory.
            kept = np.array(window.T, order="C")
            group = window_group(self.facts["group"], self.name, self.task)
            yield Found(
                name=f"{self.source.name}#{self._numbers[self._next]}",
                value=partial(np.asarray, kept),
                stamp=self.source.stamp,
                note=no_group(self.facts["group"], self.task),
                **{**self.facts, "group": group},
            )
            self._next += self.task.step
            self._cut += 1
        done = min(self._next, len(self._rows))
        self._rows, self._numbers = self._rows[done:], self._numbers[done:]
        self._next -= done

    def end(self) -> Iterator[Skipped]:
        """Yield why the recording gave no window, if it gave none."""
        if isinstance(self.facts, str):
            rows = f"{self._seen} readings: " if self._seen > 1 else ""
            yield Skipped(self.name, f"{rows}{self.facts}")
        elif not self._cut:
            yield Skipped(self.name, too_short(self._seen, self.task))


def window_group(group: str | None, recording: str, task: SeriesTask) -> str | None:
    """Return what a window must stay together with others by."""
    overlap = task.step < task.length
    return recording if group is None and overlap else group


def too_short(readings: int, task: SeriesTask) -> str:
    """Return why a recording gives no window."""
    what = "reading" if readings == 1 else "readings"
    return (
        f"{readings} {what} of one class in a row, in the order of the file: a window "
        f"has {task.length}"
    )
