"""Files of NumPy arrays: ``.npz`` and ``.npy``; large ones stay where they are.

Not here: what the arrays must be, and the samples in them (``array_samples``).
"""

import zipfile
from collections.abc import Callable
from functools import partial
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from common.data.inflate import check_inflated, most_bytes
from common.errors import DataError
from common.own.folders import Entry
from common.text import reason

CLASS_NAMES = "class_names"

NAMES = frozenset(
    {
        *("x", "y", "group", "x_train", "y_train", "group_train"),
        *("x_test", "y_test", "group_test", CLASS_NAMES),
    }
)
"""Arrays that samples are made of; see ``array_samples``."""

LARGE, LONG = 2**24, 256
"""Bytes of an array, and of one sample, from which samples are read one by one."""


class Stored:
    """An array that stays in its file, of which samples are read one by one.

    The file is kept open: one that is replaced meanwhile is not mixed up with the new
    one. It is not mapped: one that is cut short would end the process.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Look at an array at the beginning of a file; raises ValueError."""
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"version {version} of the format")
        self.shape, fortran, self.dtype = read[version](file)
        self._file, self._start = file, file.tell()
        self._bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        size = self._bytes * (self.shape[0] if self.shape else 0)
        in_order = not fortran and not self.dtype.hasobject and len(self.shape) > 1
        self.is_large = in_order and size >= LARGE and self._bytes >= LONG

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, at: int | slice) -> NDArray[Any]:
        """Return one sample, or some that follow one another.

        Raises
        ------
        DataError
            If the file has changed or is broken.
        """
        if isinstance(at, slice):
            first, end, _ = at.indices(len(self))
            return np.stack([self[row] for row in range(first, end)])
        try:
            self._file.seek(self._start + at * self._bytes)
            data = self._file.read(self._bytes)
        except Exception as error:  # a broken file leads to many
            raise DataError(f"cannot be read: {reason(error)}") from None
        if len(data) != self._bytes:
            raise DataError("the file has become shorter")
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])


Array = NDArray[Any] | Stored


def npz_arrays(entry: Entry) -> dict[str, Array]:
    """Return the arrays of a file that samples can be made of.

    Raises
    ------
    DataError
    """
    arrays: dict[str, Array] = {}
    name = "(table of contents)"
    try:
        with zipfile.ZipFile(entry.path) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            wanted = {name: members[name] for name in sorted(NAMES & {*members})}
            # What zipfile unpacks of a member ends at the size it states.
            total = sum(info.file_size for info in wanted.values())
            check_inflated(entry.path, total, most_bytes(entry.path))
            for name, info in wanted.items():
                arrays[name] = _array(partial(archive.open, info))
    except DataError:
        raise
    except Exception as error:  # a broken file leads to many
        raise _unreadable(entry.name, name, error) from None
    if not arrays:
        there = ", ".join(sorted(members)[:20]) or "none"
        raise DataError(f"{entry.name} has no array 'x' or 'x_train' (it has {there})")
    return arrays


def npy_arrays(entries: list[Entry]) -> dict[str, Array]:
    """Return the arrays of ``.npy`` files by their names, without the ending.

    Raises
    ------
    DataError
    """
    arrays: dict[str, Array] = {}
    for entry in entries:
        try:
            arrays[entry.path.stem] = _array(partial(entry.path.open, "rb"))
        except Exception as error:
            raise _unreadable(entry.name, entry.path.stem, error) from None
    return arrays


def _array(open_file: Callable[[], Any]) -> Array:
    file = open_file()
    stored = Stored(file)
    if stored.is_large:
        return stored
    with file:
        file.seek(0)
        return npy.read_array(file, allow_pickle=False)


def _unreadable(file: str, array: str, error: Exception) -> DataError:
    if isinstance(error, OSError):
        return DataError(f"{file} cannot be read: {reason(error)}")
    if "pickle" in str(error):
        return DataError(
            f"{file}, array {array!r} holds Python objects: expected numbers or words "
            "(dtype=str)"
        )
    if isinstance(error, zipfile.BadZipFile):
        return DataError(f"{file} is no .npz file, or it is broken: {error}")
    return DataError(f"{file}, array {array!r} cannot be read: {reason(error)}")
