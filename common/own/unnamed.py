"""A cache of samples for a device without a state directory: a file without a name.

It goes with the process. Of several data paths, as a simulation has them, the
``UNNAMED_KEPT`` used last are kept.
"""

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

from common.own.cache_places import BUFFER, Place
from common.own.index import Index

UNNAMED_KEPT = 64


class Unnamed(Place):
    """In a temporary file without a name, for this process and as long as it lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._file: IO[bytes] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock of this process."""
        with self._lock:
            yield

    def read(self) -> Index | None:
        """Return the index that was committed last."""
        return self._index

    def opened(self, index: Index) -> IO[bytes] | None:
        """Return the file of samples under a descriptor of its own."""
        if self._file is None:
            return None
        return os.fdopen(os.dup(self._file.fileno()), "rb")

    def at_end(self, index: Index, size: int) -> IO[bytes]:
        """Return the same file, to be written to."""
        assert self._file is not None
        file = os.fdopen(os.dup(self._file.fileno()), "r+b", buffering=BUFFER)
        file.truncate(size)
        file.seek(size)
        return file

    def fresh(self) -> IO[bytes]:
        """Make a temporary file."""
        return tempfile.TemporaryFile(buffering=BUFFER)

    def commit(self, index: Index, file: IO[bytes]) -> Index:
        """Keep both."""
        file.flush()
        self._index = replace(index, written=self.written(file))
        self._file = os.fdopen(os.dup(file.fileno()), "rb")
        return self._index

    def abandon(self, file: IO[bytes], index: Index | None, size: int) -> None:
        """Cut the file that is kept to what it was; any other is gone."""
        if self._file is not None:
            os.ftruncate(self._file.fileno(), size)

    def written(self, file: IO[bytes]) -> int:
        """Return 0: nobody else can write to it."""
        return 0

    def used(self) -> None:
        """Nothing: which was used last is known by ``unnamed``."""


_unnamed: OrderedDict[str, Unnamed] = OrderedDict()
_unnamed_lock = threading.Lock()


def unnamed(name: str) -> Unnamed:
    """Return this process's file for a data path and form."""
    with _unnamed_lock:
        place = _unnamed.setdefault(name, Unnamed())
        _unnamed.move_to_end(name)
        while len(_unnamed) > UNNAMED_KEPT:
            _unnamed.popitem(last=False)
        return place
