"""Rows that are computed once and kept on the disk, as many as were asked for so far.

A table is two files of a folder: ``<key>.values``, float16 and sparse, and
``<key>.rows``, one byte for each row that is there. The key says what the rows are made
of; what is made of other data or weights is another table. Values are synced before
their bytes are set, so that a crash loses rows and never leaves a wrong one. Several
processes fill a table at a time: they write the same values.

Tables that were not used for the longest time are removed where a new one has no room.
Not here: what is in a row (``common.features``).
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.files import make_folder
from common.own.mapped import mapped
from common.text import reason

logger = logging.getLogger("flwr.expertfleet")

STEP = 256
"""Rows that are computed before they are written."""

VALUES, ROWS = ".values", ".rows"
TYPE = np.dtype(np.float16)
Compute = Callable[[NDArray[np.int64]], NDArray[np.float16]]


class FeatureTable:
    """A table of ``rows`` rows of this shape.

    Parameters
    ----------
    folder : Path
    key : str
        Fit for the name of a file.
    rows : int
    shape : tuple of int
        Of one row.
    limit : int
        Bytes of all tables of the folder together.

    Raises
    ------
    OSError
        If it cannot be made, or one alone is larger than the limit.
    """

    def __init__(
        self, folder: Path, key: str, rows: int, shape: tuple[int, ...], limit: int
    ) -> None:
        self._shape, self._rows = shape, rows
        self._each = int(np.prod(shape)) * TYPE.itemsize
        make_folder(folder)
        values, there = folder / f"{key}{VALUES}", folder / f"{key}{ROWS}"
        whole = values.exists() and values.stat().st_size == rows * self._each
        if not whole or not there.exists() or there.stat().st_size != rows:
            for path in (there, values):
                path.unlink(missing_ok=True)
            _make_room(folder, rows * self._each, limit)
        self._values = _opened(values, rows * self._each)
        self._there = _opened(there, rows)
        with suppress(OSError):
            os.utime(there)

    def __enter__(self) -> "FeatureTable":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in (self._values, self._there):
            os.close(handle)

    def fill(self, rows: NDArray[np.int64], compute: Compute) -> int:
        """Compute what is not there yet; return how many rows that were.

        Raises
        ------
        OSError
            If the disk is full: what was written before stays.
        """
        computed = 0
        missing = self._missing(np.unique(rows))
        steps = [missing[i : i + STEP] for i in range(0, len(missing), STEP)]
        # Who fills the same table at the same time begins elsewhere.
        start = os.getpid() % max(1, len(steps))
        for step in [*steps[start:], *steps[:start]]:
            step = self._missing(step)
            if not len(step):
                continue
            found = compute(step)
            for row, value in zip(step.tolist(), found, strict=True):
                _write(self._values, value.tobytes(), row * self._each)
            os.fsync(self._values)
            for row in step.tolist():
                _write(self._there, b"\1", row)
            computed += len(step)
        os.fsync(self._there)
        return computed

    def values(self) -> NDArray[np.float16]:
        """Return all rows, shape (rows, *shape), mapped; zeros where none was filled.

        They can be read when the table is closed or removed.
        """
        with os.fdopen(os.dup(self._values), "rb") as file:
            return mapped(file, self._shape, TYPE, self._rows)

    def _missing(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        there = np.frombuffer(os.pread(self._there, self._rows, 0), dtype=np.uint8)
        return rows[there[rows] == 0]


def _opened(path: Path, size: int) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(handle, size)
    return handle


def _write(handle: int, data: bytes, place: int) -> None:
    if os.pwrite(handle, data, place) != len(data):
        raise OSError("the disk is full")


def _make_room(folder: Path, wanted: int, limit: int) -> None:
    """Remove tables, those used last at the end, until there is room for another."""
    if wanted > limit:
        raise OSError(f"it takes {wanted} bytes, and feature-cache allows {limit}")
    tables: list[tuple[float, Path, int]] = []
    for values in folder.glob(f"*{VALUES}"):
        there = values.with_suffix(ROWS)
        with suppress(OSError):
            used = there.stat().st_mtime if there.exists() else 0.0
            tables.append((used, values, values.stat().st_size))
    total = wanted + sum(size for *_, size in tables)
    for _, values, size in sorted(tables, key=lambda table: table[0]):
        if total <= limit:
            break
        for path in (values.with_suffix(ROWS), values):
            path.unlink(missing_ok=True)
        total -= size


_told: set[str] = set()


def not_kept(why: Exception | str) -> None:
    """Say once why features are computed for every message."""
    text = reason(why) if isinstance(why, Exception) else why
    if text not in _told:
        _told.add(text)
        logger.warning("features of frozen layers are not kept: %s", text)


def cache_folder() -> Path:
    """Return where what is public is kept: ``$XDG_CACHE_HOME/expertfleet/features``."""
    home: Any = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "expertfleet" / "features"
