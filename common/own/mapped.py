"""Samples of a file as an array that takes memory only where it is read."""

import mmap
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

PIECE = 2**23
"""Bytes that are read before they are given back."""

AROUND = 2**16
"""Bytes that a system maps around every place that is read."""


def mapped(
    file: IO[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    rows: int,
    start: int = 0,
) -> NDArray[Any]:
    """Map rows of a file, read-only; the file may be closed or removed then.

    Parameters
    ----------
    shape, dtype
        Of one row.
    start : int
        Byte at which the first row begins.

    Returns
    -------
    ndarray, shape (rows, *shape)
    """
    count = rows * int(np.prod(shape))
    if not count:
        return np.empty((rows, *shape), dtype=dtype)
    offset = start % mmap.ALLOCATIONGRANULARITY
    pages = mmap.mmap(
        file.fileno(),
        offset + count * dtype.itemsize,
        access=mmap.ACCESS_READ,
        offset=start - offset,
    )
    flat = np.frombuffer(pages, dtype=dtype, count=count, offset=offset)
    return flat.reshape(rows, *shape)


class Reading:
    """Reads rows of mapped samples and gives their memory back every now and then.

    Parameters
    ----------
    x : ndarray, shape (N, *stored)
        Mapped or not.
    """

    def __init__(self, x: NDArray[Any]) -> None:
        self.x = x
        self._read = 0

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return a copy of some rows, shape (B, *stored)."""
        found = self.x[rows]
        self._read += max(found.nbytes, len(rows) * AROUND)
        if self._read > PIECE:
            release(self.x)
            self._read = 0
        return found


def release(x: NDArray[Any]) -> None:
    """Give back the memory of mapped samples, which are read again when needed.

    Nothing happens to an array that is not mapped.
    """
    base: Any = x
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
