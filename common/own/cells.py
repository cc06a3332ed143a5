"""Cells of rows, whatever file they come from, as numbers, classes and groups.

Not here: files (``columns``, ``lines``, ``saved``), and what rows become (``tables``,
``recordings``).
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError, nearest
from common.own.folders import SPLITS, TEST
from common.own.found import Skipped, class_word, shown
from common.task import Task

MISSING = frozenset(
    {"", "na", "n/a", "nan", "null", "none", "#n/a", "#na", "<na>", "?"}
)
"""What stands in a cell without a value, in small letters."""

SPLIT = "split"
"""A column that may say of a row that it is for testing."""

_TRUTH = {"true": 1.0, "false": 0.0}
_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")
_WHOLE_FLOAT = re.compile(r"([+-]?\d+)\.0*")


@dataclass(frozen=True)
class Rows:
    """Some rows that follow one another.

    Attributes
    ----------
    numbers : sequence of int
        Of the rows, as a person counts them.
    cells : mapping of str to sequence or ndarray
        By column: words, numbers, None; or an array of float64, NaN where missing.
    """

    numbers: Sequence[int]
    cells: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """A file of rows.

    Attributes
    ----------
    name : str
        Path relative to the folder that was read.
    stamp : tuple of int
        Of the file.
    columns : tuple of str
        There are.
    read : Callable[[Sequence[str]], Iterator[Rows or Skipped]]
        Yields rows with the columns that are named.
    label : str or None
        The class whose folder the file lies in.
    test : bool
        Whether it lies in a part for testing.
    comma : bool
        Whether decimals may have a comma: where none stands between columns.
    named_in_file : bool
        Whether a first line, which may be missing, names the columns.
    images : str
        The column of images; "" for none.
    cell : Callable[[int, str], Any] or None
        Returns one cell by its row, from 0, and its column, where that is cheap.
    size : int
        Rows, where that is known.
    """

    name: str
    stamp: tuple[int, ...]
    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[Rows | Skipped]]
    label: str | None = None
    test: bool = False
    comma: bool = False
    named_in_file: bool = False
    images: str = ""
    cell: Callable[[int, str], Any] | None = None
    size: int = 0

    def need(self, names: Iterable[str]) -> None:
        """Check that columns are there.

        Raises
        ------
        DataError
            Naming those that are not.
        """
        names = list(names)
        missing = [name for name in names if name not in self.columns]
        if not missing:
            return
        which = ", ".join(map(repr, missing[:5]))
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        columns = [shown(name) for name in self.columns]
        there = ", ".join(columns[:20]) + (", ..." * (len(columns) > 20))
        hint = nearest(missing[0], columns)
        # A remark, or what stands between columns is odd.
        one = len(columns) == 1 and columns[0] not in names
        if self.named_in_file and (one or any(map(_is_number, columns))):
            hint = "; the first line must hold the names of the columns"
        raise DataError(
            f"{self.name} has no column {which}{more} (it has {there or 'none'}){hint}"
        )

    def extras(
        self, task: Task, labelled: bool, values: Iterable[str] = ()
    ) -> list[str]:
        """Return the columns that are no values: class, group and split.

        Raises
        ------
        DataError
            If one of them or of ``values`` is missing that is needed.
        """
        wanted = [task.group_column] if task.group_column else []
        if task.label_column in self.columns or (labelled and self.label is None):
            wanted.append(task.label_column)
        self.need([*values, *wanted])
        if SPLIT in self.columns and SPLIT not in wanted:
            wanted.append(SPLIT)
        return wanted


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def is_missing(cell: Any) -> bool:
    """Whether a cell holds no value."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return True
    return isinstance(cell, str) and cell.strip().lower() in MISSING


def word_of(cell: Any) -> str:
    """Return what a cell says as a word: ``1`` for 1.0, too.

    Columns of whole numbers with a gap become decimals in many programs.
    """
    text = str(cell).strip()
    whole = _WHOLE_FLOAT.fullmatch(text)
    return whole[1] if whole else text


def is_whole(word: str) -> bool:
    """Whether a word is a whole number."""
    return _WHOLE.fullmatch(word) is not None


def label_of(cell: Any, task: Task, where: str) -> str | None:
    """Return the word for a row's class; None where the cell is empty.

    Raises
    ------
    DataError
        If it is a number and the classes are not: nobody but the task numbers them.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    tries = [str(cell), word_of(cell)]
    if isinstance(cell, bool):
        tries += [str(cell).lower(), str(int(cell))]
    for word in tries:
        if (known := class_word(word, task)) in task.number_of:
            return known
    # Only now: a class may be called "none".
    if is_missing(cell):
        return None
    word = class_word(word_of(cell), task)
    if is_whole(word) and not any(map(is_whole, task.classes)):
        raise DataError(
            f"{where}: {task.label_column} = {word} is a number; expected the name of "
            f"a class, one of {', '.join(task.classes[:20])}"
        )
    return word


def group_of(cell: Any) -> str | None:
    """Return what a row must stay together with others by; None for nothing."""
    return None if is_missing(cell) else shown(word_of(cell))


def is_test(cell: Any) -> bool:
    """Whether the cell of the column ``SPLIT`` says so."""
    return isinstance(cell, str) and SPLITS.get(cell.strip().lower()) == TEST


def not_utf8(cell: Any) -> bool:
    """Whether a word was read from bytes that are no UTF-8."""
    if not isinstance(cell, str) or cell.isascii():
        return False
    return any("\ud800" <= c <= "\udfff" for c in cell)


def numbers_of(cells: Any, comma: bool) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return a column's numbers, NaN where missing, and which cells hold none.

    Parameters
    ----------
    cells : sequence or ndarray
        As of :class:`Rows`.
    comma : bool
        Whether ``3,5`` is a number.

    Returns
    -------
    numbers : ndarray of float64
    bad : dict of int to str
        Position to reason.
    """
    if isinstance(cells, np.ndarray):
        values = cells.astype(np.float64)
        bad: dict[int, str] = {}
    else:
        values, bad = _parsed(cells, comma)
    with np.errstate(over="ignore"):
        infinite = np.isinf(values.astype(np.float32))
    for row in np.flatnonzero(infinite).tolist():
        bad.setdefault(row, f"{_shown(cells[row])} is no number of 32 bits")
        values[row] = np.nan
    return values, bad


def mixed_signs(columns: Iterable[Any]) -> set[int]:
    """Return the rows with a decimal comma in one cell and a point in another.

    A point may then stand between thousands: ``1.234`` is two numbers.

    Parameters
    ----------
    columns : iterable of (sequence or ndarray)
        Cells of columns of numbers, as of :class:`Rows`.
    """
    words = [c for c in columns if not isinstance(c, np.ndarray)]
    if not any(isinstance(cell, str) and "," in cell for c in words for cell in c):
        return set()
    commas, points = set(), set()
    for cells in words:
        for row, cell in enumerate(cells):
            if isinstance(cell, str) and _COMMA.fullmatch(cell.strip()):
                commas.add(row)
            elif isinstance(cell, str) and "." in cell:
                points.add(row)
    return commas & points


MIXED_SIGNS = "has numbers with a decimal comma and with a point: write all in one way"


TOO_FINE = "changes by too little for 32 bits: take a constant away from it"


def loses_steps(values: NDArray[np.float64]) -> bool:
    """Whether 32 bits cannot tell most of these numbers apart, as of times in ms."""
    known = values[np.isfinite(values)]
    kept = known.astype(np.float32)
    return 2 * len(np.unique(kept)) <= len(np.unique(known)) > 2


def _parsed(
    cells: Sequence[Any], comma: bool
) -> tuple[NDArray[np.float64], dict[int, str]]:
    with suppress(ValueError, TypeError, OverflowError):
        # Most columns hold nothing but numbers: ten times as fast.
        every = np.array(cells, np.float64)
        if every.shape == (len(cells),) and "_" not in "".join(map(str, cells)):
            return every, {}
    values, bad = np.full(len(cells), np.nan), {}
    for row, cell in enumerate(cells):
        try:
            values[row] = _number(cell, comma)
        except (ValueError, TypeError, OverflowError):
            hint = ""
            if isinstance(cell, str) and _COMMA.fullmatch(cell.strip()):
                hint = "; for a decimal comma, put ; between columns"
            bad[row] = f"{_shown(cell)} is no number{hint}"
    return values, bad


def _number(cell: Any, comma: bool) -> float:
    if not isinstance(cell, str):
        return math.nan if cell is None else float(cell)
    try:
        if "_" not in cell:  # Python's own notation, and nobody else's
            return float(cell)
    except ValueError:
        pass
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    if text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    if comma and _COMMA.fullmatch(text):
        return float(text.replace(",", "."))
    raise ValueError(text)


def _shown(cell: Any) -> str:
    return f"{cell!r:.60}"
