"""What a reader finds: one sample, or a thing that is no sample and why.

Not here: files of any format (the modules beside this one), the numbers of classes and
the cache (``common.own.own_data``).
"""

import os
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from common.task import Task


@dataclass(frozen=True, kw_only=True)
class Found:
    """One sample, not decoded yet.

    Attributes
    ----------
    name : str
        Path relative to the folder that was read; ``path#row`` where a file holds
        many, counted as a person counts (the first line of a CSV file is line 1).
    label : str, int or None
        The file's own word for the class, with spaces at its ends cut off and in the
        task's spelling where only the Unicode form differs. A number only from arrays
        whose labels are numbers, and then in the task's range. None where there is
        none, which only happens where none was asked for.
    value : Callable[[], ndarray]
        Decodes the sample to the stored form of the task. Raises DataError, or OSError
        if the file has gone; ``str()`` of a DataError is the reason, without the name.
    stamp : tuple of int
        Size and time of the file: as long as it stays the same, so does the value.
    group : str or None
        What samples must stay together by.
    test : bool
        Whether it lies in a part for testing.
    note : str
        What is odd about a sample that is used all the same; "" for nothing.
    """

    name: str
    label: str | int | None
    value: Callable[[], NDArray[Any]]
    stamp: tuple[int, ...]
    group: str | None = None
    test: bool = False
    note: str = ""


@dataclass(frozen=True)
class Skipped:
    """A thing that looks like data and cannot be used.

    Attributes
    ----------
    name : str
        As of :class:`Found`.
    reason : str
        One line.
    """

    name: str
    reason: str


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file does: its size, and its time in ns."""
    return status.st_size, status.st_mtime_ns


def no_group(group: object, task: Task) -> str:
    """Return the note of a sample whose group the task asks for and nothing says."""
    if group is not None or not task.group_column:
        return ""
    return f"nothing says the {task.group_column} of it"


def shown(name: str) -> str:
    """Return a name as text: bytes in it that are no UTF-8 are written out."""
    return name.encode("utf-8", "backslashreplace").decode()


def class_word(word: str, task: Task) -> str:
    """Return a file's word for a class as the task spells it, if it is one.

    File systems and editors write the same letters in several Unicode forms.
    """
    word = shown(word.strip())
    if word in task.number_of:
        return word
    return _as_spelt(task.classes).get(unicodedata.normalize("NFC", word), word)


@lru_cache(maxsize=8)  # asked for every sample that is read
def _as_spelt(classes: tuple[str, ...]) -> Mapping[str, str]:
    return {unicodedata.normalize("NFC", name.strip()): name for name in classes}
