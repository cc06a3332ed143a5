"""Text files, a line at a time: in UTF-8, packed or not; and those of JSON objects.

Not here: what the rows become (``tables``, ``recordings``).
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from common.data.inflate import check_inflated, most_bytes
from common.data.jsonl import LONGEST
from common.errors import DataError
from common.own.cells import Rows, RowSource
from common.own.folders import Entry
from common.own.found import Skipped
from common.text import first_line, reason

EXPECTED = "a JSON object in every line"

BATCH = 1024
"""Rows that are looked at together."""

_UTF_32 = codecs.BOM_UTF32_LE  # begins as UTF-16 does
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def encoding_of(start: bytes) -> str:
    """Return the encoding of a text that starts so: UTF-8 unless it is marked."""
    return _MARKS.get(start[:2], "utf-8-sig")


def no_text(start: bytes) -> str:
    """Return why a file that starts so cannot be read as text; "" if it can."""
    if start.startswith(b"PK\x03\x04"):
        return "it is packed, or a spreadsheet; save it as CSV"
    if start[:4] == _UTF_32 or (b"\0" in start[:4] and start[:2] not in _MARKS):
        return "it may be in UTF-16 or UTF-32; save it in UTF-8"
    return ""


def text_lines(path: Path, name: str) -> Iterator[str]:
    """Yield a file's lines with their ends; ``.gz`` is unpacked.

    Bytes that are no UTF-8 become halves of surrogate pairs: whether they matter is
    known where the cell is used.

    Raises
    ------
    DataError
        If it cannot be read, a line is too long, or it unpacks to too much.
    """
    try:
        most = most_bytes(path)
        packed = path.suffix.lower() == ".gz"
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.peek(4)
            if why := no_text(start):
                raise DataError(f"{name} is no text file: {why}")
            text = io.TextIOWrapper(
                file,
                encoding_of(start),
                errors="surrogateescape",
                newline="",
            )
            read = 0
            while line := text.readline(LONGEST):
                read += len(line)
                if packed:
                    check_inflated(path, read, most)
                if len(line) == LONGEST:
                    raise DataError(f"{name}: a line has more than {LONGEST} letters")
                yield line
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise DataError(f"{name} cannot be read: {reason(error)}") from None


def open_jsonl(entry: Entry) -> RowSource:
    """Look at a file of one JSON object a line; lines are the rows.

    A field that a line lacks is an empty cell.
    """
    found = _objects(entry)
    start = list(islice(found, BATCH))
    objects = [each for each in start if not isinstance(each, Skipped)]
    if not objects:
        bad = [f"{b.name}: {b.reason}" for b in start if isinstance(b, Skipped)]
        raise DataError(
            bad[0] if bad else f"{entry.name} is empty: expected {EXPECTED}"
        )
    columns = dict.fromkeys(field for _, line in objects for field in line)

    def read(wanted: Sequence[str]) -> Iterator[Rows | Skipped]:
        every = chain(start, found)
        while batch := list(islice(every, BATCH)):
            yield from (each for each in batch if isinstance(each, Skipped))
            good = [each for each in batch if not isinstance(each, Skipped)]
            cells = {name: [line.get(name) for _, line in good] for name in wanted}
            yield Rows([number for number, _ in good], cells)

    return RowSource(
        name=entry.name,
        stamp=entry.stamp,
        columns=tuple(columns),
        read=read,
        comma=True,
    )


def _objects(entry: Entry) -> Iterator[tuple[int, dict[str, Any]] | Skipped]:
    for number, line in enumerate(text_lines(entry.path, entry.name), 1):
        if not line.strip():
            continue
        row = f"{entry.name}#{number}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            told = first_line(str(error), 100)
            yield Skipped(row, f"the line is no JSON of its own ({told})")
            continue
        if isinstance(found, dict):
            yield number, found
        else:
            yield Skipped(row, f"{line.strip()!r:.40} is none: expected a JSON object")
