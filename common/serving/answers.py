"""Where answers go, batch by batch: a table, ``.csv``, ``.jsonl`` or ``.npz``.

Also: how many of those were right whose class is known. Not here: reading samples
(``samples``) and computing (``servable``).
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import numpy as np

from common.files import atomic_write
from common.serving.samples import Batch
from common.serving.servable import Predictions
from common.task import Task
from common.text import one_line

COLUMNS = ("sample", "class", "probability", "expert")

WIDEST = 40
"""Characters of a column of the table; what is longer moves the others."""

EACH = 20
"""Classes whose recall is told one by one."""

Take = Callable[[Batch, Predictions], None]
"""Takes the answers to a batch."""


@contextmanager
def written(path: Path | None, task: Task) -> Iterator[Take]:
    """Open what answers go to; a file gets its name when all of them are in it.

    Parameters
    ----------
    path : Path or None
        ``.csv`` and ``.jsonl`` have a line for every sample; any other ending is an
        ``.npz``. None prints a table.
    task : Task
    """
    if path is None:
        yield _table(task)
        return
    with atomic_write(path, 0o644) as file:
        if path.suffix.lower() in (".csv", ".jsonl"):
            text = TextIOWrapper(file, "utf-8", "replace", newline="")
            is_csv = path.suffix.lower() == ".csv"
            yield (_csv if is_csv else _jsonl)(text, task)
            text.detach()
        else:
            batches: list[tuple[list[str], Predictions]] = []
            yield lambda batch, found: batches.append((batch.names, found))
            _save(file, task, batches)


def _rows(
    batch: Batch, found: Predictions, task: Task
) -> Iterator[tuple[str, str, float, int]]:
    for name, probabilities, chosen, expert in zip(batch.names, *found, strict=True):
        yield name, task.classes[chosen], float(probabilities[chosen]), int(expert)


def _table(task: Task) -> Take:
    widths: list[int] = []

    def take(batch: Batch, found: Predictions) -> None:
        if not widths:
            longest = max(map(len, task.classes)), max(map(len, batch.names))
            widths.extend(min(WIDEST, max(6, width)) for width in longest)
            print(_line("sample", "class", "probability", "expert", *widths))
        for name, word, probability, expert in _rows(batch, found, task):
            by = "-" if expert < 0 else str(expert)
            print(_line(one_line(name), word, f"{probability:.4f}", by, *widths))

    return take


def _line(name: str, word: str, number: str, by: str, words: int, names: int) -> str:
    return f"{name:<{names}}  {word:>{words}}  {number:>11}  {by:>6}"


def _csv(file: IO[str], task: Task) -> Take:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    return lambda batch, found: writer.writerows(_rows(batch, found, task))


def _jsonl(file: IO[str], task: Task) -> Take:
    def take(batch: Batch, found: Predictions) -> None:
        for row in _rows(batch, found, task):
            fields = dict(zip(COLUMNS, row, strict=True))
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")

    return take


def _save(
    file: IO[bytes], task: Task, batches: list[tuple[list[str], Predictions]]
) -> None:
    names = [name for part, _ in batches for name in part]
    arrays: dict[str, Any] = {}
    if batches:
        joined = zip(*(found for _, found in batches), strict=True)
        fields = zip(Predictions._fields, joined, strict=True)
        arrays = {field: np.concatenate(parts) for field, parts in fields}
    np.savez_compressed(file, names=names, class_names=[*task.classes], **arrays)


class Score:
    """How many samples of a known class were answered with it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._known = np.zeros(task.num_classes, dtype=np.int64)
        self._right = np.zeros(task.num_classes, dtype=np.int64)
        self._other = 0

    def add(self, batch: Batch, found: Predictions) -> None:
        """Count the samples of a batch whose class is known."""
        for label, chosen in zip(batch.labels, found.classes, strict=True):
            number = self._number(label)
            if number is not None:
                self._known[number] += 1
                self._right[number] += int(chosen == number)
            elif label is not None:
                self._other += 1

    def lines(self) -> Iterator[str]:
        """Yield what is to be said of it, nothing where no class is known."""
        known, right = int(self._known.sum()), int(self._right.sum())
        if not known:
            return
        yield f"accuracy {right / known:.4f} of {known} samples whose class is known"
        if self._other:
            yield f"{self._other} have a class that the model does not know"
        there = np.flatnonzero(self._known)
        if len(there) <= EACH:
            each = (
                f"{self._task.classes[k]} {self._right[k] / self._known[k]:.4f} "
                f"of {self._known[k]}"
                for k in there
            )
            yield f"recall: {', '.join(each)}"
        else:
            recall = self._right[there] / self._known[there]
            yield f"balanced accuracy {recall.mean():.4f} over {len(there)} classes"

    def _number(self, label: str | int | None) -> int | None:
        if isinstance(label, str):
            return self._task.number_of.get(label)
        if label is not None and 0 <= label < self._task.num_classes:
            return int(label)
        return None


class Omitted:
    """Names what cannot be used on stderr as it comes: some of it, and how many."""

    NAMED = 20

    def __init__(self) -> None:
        self.count = 0

    def add(self, name: str, reason: str) -> None:
        """Note one."""
        self.count += 1
        if self.count <= self.NAMED:
            print(f"skipped {one_line(name)}: {one_line(reason)}", file=sys.stderr)
        elif self.count == self.NAMED + 1:
            print("skipped: more of them, which are only counted", file=sys.stderr)
