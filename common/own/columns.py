"""Files of named columns: CSV and Parquet.

Not here: what the rows become (``tables``, ``recordings``).
"""

import csv
import importlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from common.data.inflate import check_inflated, most_bytes
from common.data.jsonl import LONGEST
from common.errors import DataError
from common.own.cells import Rows, RowSource
from common.own.folders import Entry
from common.own.found import Skipped
from common.own.lines import BATCH, text_lines
from common.task import ImageTask, SeriesTask, TableTask, Task, TextTask
from common.text import reason

SEPARATORS = ",;\t|"
_STATED = re.compile(r"sep=(.)", re.IGNORECASE)
"""A first line by which spreadsheets agree on what stands between columns."""


def library(name: str, what: str) -> Any:
    """Import a module of the extra ``own-data``.

    Raises
    ------
    DataError
        If it is not installed: what to do; or why it cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name != package:
            raise DataError(
                f"{what} needs the package {package}, which cannot be imported: "
                f"{reason(error)}"
            ) from None
        raise DataError(
            f"{what} needs the package {package}: pip install 'expertfleet[own-data]'"
        ) from None


def columns_of(task: Task) -> list[str]:
    """Return the columns of values that a task names."""
    match task:
        case TableTask(columns=tuple() as columns):
            return [column.name for column in columns]
        case SeriesTask():
            return list(task.channels)
        case TextTask():
            return [task.text_column]
        case ImageTask():
            return ["file_name"]
    return []


def open_csv(entry: Entry, task: Task) -> RowSource:
    """Look at a CSV file: its first line holds the names of the columns.

    What stands between columns (``, ; | ``or a tab) is what makes most of the names
    those of the task.

    Raises
    ------
    DataError
    """
    csv.field_size_limit(LONGEST)
    text = text_lines(entry.path, entry.name)
    lines_before, first = 0, "\n"
    while first and not first.strip():
        lines_before, first = lines_before + 1, next(text, "")
    if not first:
        raise DataError(f"{entry.name} is empty: expected a line of column names")
    separators = SEPARATORS
    if stated := _STATED.fullmatch(first.strip()):
        separators, lines_before, first = stated[1], lines_before + 1, next(text, "")
    known = {*columns_of(task), task.label_column, task.group_column}

    def header_by(separator: str) -> list[str]:
        cells = next(csv.reader([first], delimiter=separator), [])
        return [cell.strip() for cell in cells]

    # The first of equals; one name that fits beats many that do not.
    separator = max(
        separators,
        key=lambda each: (len(known & {*header_by(each)}), len(header_by(each))),
    )
    header = header_by(separator)
    double = [name for name, times in Counter(header).items() if times > 1]
    if double and known & {*double}:
        raise DataError(f"{entry.name} has the column {double[0]!r} twice")

    def read(wanted: Sequence[str]) -> Iterator[Rows | Skipped]:
        places = {name: header.index(name) for name in wanted}
        found = csv.reader(text, delimiter=separator)
        while batch := list(_numbered(found, lines_before, entry.name)):
            rows = []
            for number, cells in batch:
                if len(cells) < len(header) or any(cells[len(header) :]):
                    reason = f"has {len(cells)} cells: expected {len(header)}"
                    yield Skipped(f"{entry.name}#{number}", reason)
                else:
                    rows.append((number, cells))
            yield Rows(
                [number for number, _ in rows],
                {name: [row[at] for _, row in rows] for name, at in places.items()},
            )

    return RowSource(
        name=entry.name,
        stamp=entry.stamp,
        columns=tuple(header),
        read=read,
        comma=separator != ",",
        named_in_file=True,
    )


def _numbered(
    reader: Any, lines_before: int, name: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield up to ``BATCH`` rows that are not blank, each with its first line."""
    for _ in range(BATCH):
        try:
            cells: list[str] = []
            while not any(map(str.strip, cells)):
                number = lines_before + reader.line_num + 1
                cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{name}, line {number}: {error}") from None
        yield number, cells


def open_parquet(entry: Entry) -> RowSource:
    """Look at a Parquet file; its rows are counted from 1.

    Raises
    ------
    DataError
    """
    parquet = library("pyarrow.parquet", entry.name)
    try:
        file = parquet.ParquetFile(entry.path)
        sizes = [
            file.metadata.row_group(each).total_byte_size
            for each in range(file.metadata.num_row_groups)
        ]
        check_inflated(entry.path, max(sizes, default=0), most_bytes(entry.path))
        schema = file.schema_arrow
    except DataError:
        raise
    except Exception as error:  # whatever a broken file does to a decoder
        raise _unreadable(entry.name, error) from None

    def read(wanted: Sequence[str]) -> Iterator[Rows | Skipped]:
        number = 1
        try:
            for batch in file.iter_batches(batch_size=BATCH, columns=list(wanted)):
                yield rows_of_arrow(batch, number)
                number += batch.num_rows
        except (OSError, ValueError) as error:  # what all of Arrow's errors are
            raise _unreadable(entry.name, error) from None

    return RowSource(
        name=entry.name,
        stamp=entry.stamp,
        columns=tuple(schema.names),
        read=read,
        images=next((f.name for f in schema if _holds_images(f.type)), ""),
        cell=_Cells(file, entry.name),
        size=file.metadata.num_rows,
    )


def _holds_images(kind: Any) -> bool:
    types = library("pyarrow.types", "Parquet")
    if types.is_struct(kind):
        return any(kind.field(k).name == "bytes" for k in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind)


class _Cells:
    """Cells of a Parquet file, of which one group of rows is kept."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name
        sizes = [
            file.metadata.row_group(each).num_rows
            for each in range(file.metadata.num_row_groups)
        ]
        self._starts = [0, *accumulate(sizes)]
        self._kept: tuple[Any, Any] = None, None

    def __call__(self, row: int, column: str) -> Any:
        group = bisect_right(self._starts, row) - 1
        if self._kept[0] != (group, column):
            try:
                rows = self._file.read_row_group(group, columns=[column])
            except (OSError, ValueError) as error:
                raise DataError(f"cannot be read: {reason(error)}") from None
            self._kept = (group, column), rows.column(0)
        return self._kept[1][row - self._starts[group]].as_py()


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(f"{name} cannot be read: {reason(error)}")


def rows_of_arrow(batch: Any, first: int) -> Rows:
    """Return the rows of an Arrow batch, the first of which has this number."""
    types = library("pyarrow.types", "Arrow")
    cells: dict[str, Any] = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if types.is_floating(column.type):
            cells[name] = np.asarray(column.cast("float64").to_numpy(False))
        elif types.is_integer(column.type) and column.null_count == 0:
            cells[name] = np.asarray(column.to_numpy(False))
        else:
            cells[name] = column.to_pylist()
    return Rows(range(first, first + batch.num_rows), cells)
