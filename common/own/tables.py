"""Rows as samples of tables, of texts and of images that lie in cells.

Not here: windows of readings (``recordings``).
"""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.tokens import Tokeniser
from common.errors import DataError
from common.own.cells import (
    MIXED_SIGNS,
    SPLIT,
    TOO_FINE,
    Rows,
    RowSource,
    group_of,
    is_missing,
    is_test,
    label_of,
    loses_steps,
    mixed_signs,
    not_utf8,
    numbers_of,
    word_of,
)
from common.own.columns import columns_of
from common.own.found import Found, Skipped, no_group
from common.own.images import read_image
from common.task import Column, ImageTask, TableTask, Task, TextTask, stored_type

Value = Callable[[], NDArray[Any]]
NO_UTF8 = "is not in UTF-8: save the file in UTF-8"


def row_samples(
    source: RowSource, task: Task, tokeniser: Tokeniser, *, labelled: bool
) -> Iterator[Found | Skipped]:
    """Yield every row of a file as a sample.

    Raises
    ------
    DataError
        If a column is missing.
    """
    extras = source.extras(task, labelled, columns_of(task))
    values: Sequence[str]
    decode: Callable[[Rows], Iterator[tuple[Value | str, str]]]
    match task:
        case TableTask():
            columns = _columns(source, task, extras)
            values = [column.name for column in columns]
            decode = partial(_table_rows, columns=columns, comma=source.comma)
        case TextTask():
            values = [task.text_column]
            decode = partial(_texts, task=task, tokeniser=tokeniser)
        case _:
            raise DataError(f"{source.name}: rows are no samples of {task.kind!r}")
    for rows in source.read(list(dict.fromkeys([*values, *extras]))):
        if isinstance(rows, Skipped):
            yield rows
            continue
        for at, (value, note) in enumerate(decode(rows)):
            yield sample_of(source, rows, at, task, value, note, labelled=labelled)


def sample_of(
    source: RowSource,
    rows: Rows,
    at: int,
    task: Task,
    value: Value | str,
    note: str = "",
    *,
    labelled: bool,
) -> Found | Skipped:
    """Return one row as a sample; ``value`` is the reason where there is none."""
    name = f"{source.name}#{rows.numbers[at]}"
    facts = facts_of(source, rows, at, task, labelled=labelled)
    if isinstance(value, str):
        return Skipped(name, value)
    if isinstance(facts, str):
        return Skipped(name, facts)
    note = note or no_group(facts["group"], task)
    return Found(name=name, value=value, stamp=source.stamp, note=note, **facts)


def facts_of(
    source: RowSource, rows: Rows, at: int, task: Task, *, labelled: bool
) -> dict[str, Any] | str:
    """Return a row's ``label``, ``group`` and ``test``, or why it is no sample.

    Raises
    ------
    DataError
        As ``label_of`` does.
    """
    label = source.label
    if task.label_column in rows.cells:
        cell = rows.cells[task.label_column][at]
        if not_utf8(cell):
            return f"{task.label_column} {NO_UTF8}"
        label = label_of(cell, task, f"{source.name}#{rows.numbers[at]}")
    if not labelled and label not in task.number_of:
        label = None
    if labelled and label is None:
        return f"{task.label_column} is empty"
    group = rows.cells[task.group_column][at] if task.group_column else None
    split = rows.cells[SPLIT][at] if SPLIT in rows.cells else None
    return {
        "label": label,
        "group": group_of(group),
        "test": source.test or is_test(split),
    }


def _columns(source: RowSource, task: TableTask, extras: list[str]) -> list[Column]:
    if not isinstance(task.columns, int):
        return list(task.columns)
    names = [name for name in source.columns if name not in extras]
    names = [name for name in names if name != task.label_column]
    if len(names) != task.columns:
        raise DataError(
            f"{source.name} has {len(names)} columns of values: expected {task.columns}"
        )
    return [Column(name=name) for name in names]


def _table_rows(
    rows: Rows, columns: list[Column], comma: bool
) -> Iterator[tuple[Value | str, str]]:
    """Yield every row's numbers, ones and zeros, and what is odd about it."""
    size = len(rows.numbers)
    x = np.zeros((size, sum(c.width for c in columns)), np.float32)
    bad: dict[int, str] = {}
    notes: dict[int, str] = {}
    place = 0
    for column in columns:
        cells = rows.cells[column.name]
        if column.values:
            known = {value: place + k for k, value in enumerate(column.values)}
            for row, cell in enumerate(cells):
                at = next((known[w] for w in _spellings(cell) if w in known), None)
                if at is not None:
                    x[row, at] = 1
                elif not is_missing(cell):
                    allowed = ", ".join(column.values[:10])
                    notes.setdefault(
                        row, f"{column.name} = {cell!r:.60} is none of {allowed}"
                    )
        else:
            numbers, wrong = numbers_of(cells, comma)
            x[:, place] = numbers
            for row, reason in wrong.items():
                bad.setdefault(row, f"{column.name}: {reason}")
            if loses_steps(numbers):
                notes.setdefault(0, f"{column.name} {TOO_FINE}")
        place += column.width
    if comma:
        of_numbers = (rows.cells[c.name] for c in columns if not c.values)
        bad |= dict.fromkeys(mixed_signs(of_numbers), MIXED_SIGNS)
    for row in range(size):
        yield bad.get(row) or partial(x.__getitem__, row), notes.get(row, "")


def _spellings(cell: Any) -> tuple[str, ...]:
    """Return how a cell may be written as the value of a category."""
    if isinstance(cell, str):
        return cell, cell.strip()
    return str(cell), word_of(cell), str(cell).lower()


def _texts(
    rows: Rows, task: TextTask, tokeniser: Tokeniser
) -> Iterator[tuple[Value | str, str]]:
    for text in rows.cells[task.text_column]:
        if not_utf8(text):
            yield f"{task.text_column} {NO_UTF8}", ""
        elif text is None or not str(text).strip():
            yield f"{task.text_column} is empty", ""
        elif isinstance(text, list | dict):
            yield f"{task.text_column} holds {text!r:.60}: expected a text", ""
        else:
            yield partial(encoded, str(text), task, tokeniser), ""


def encoded(text: str, task: TextTask, tokeniser: Tokeniser) -> NDArray[Any]:
    """Return a text's ids in the stored type, shape (length,)."""
    return tokeniser.encode([text])[0].astype(stored_type(task))


def image_rows(
    source: RowSource, path: Path, task: ImageTask, *, labelled: bool
) -> Iterator[Found | Skipped]:
    """Yield the images of a column; they are read one by one when they are decoded.

    Parameters
    ----------
    path : Path
        Of the file, beside which images may lie that a cell only names.

    Raises
    ------
    DataError
        If there is no such column.
    """
    if not source.images or source.cell is None:
        raise DataError(
            f"{source.name} has no column of images (it has "
            f"{', '.join(source.columns[:20])})"
        )
    extras = source.extras(task, labelled)
    batches: Iterator[Rows | Skipped] = iter([Rows(range(1, source.size + 1), {})])
    for rows in source.read(extras) if extras else batches:
        if isinstance(rows, Skipped):
            yield rows
            continue
        for at, number in enumerate(rows.numbers):
            value = partial(_image_cell, source, number - 1, path, task)
            yield sample_of(source, rows, at, task, value, labelled=labelled)


def _image_cell(
    source: RowSource, row: int, path: Path, task: ImageTask
) -> NDArray[Any]:
    """Decode bytes, or what Hugging Face writes: ``bytes``, or a ``path`` to them."""
    content = source.cell(row, source.images) if source.cell else None
    if isinstance(content, dict):
        where, content = content.get("path"), content.get("bytes")
        if content is None and where:
            return read_image(path.parent / where, task)
    if not isinstance(content, bytes) or not content:
        raise DataError("the cell holds no image")
    return read_image(path, task, io.BytesIO(content))
