"""Where a cache of samples lies: its interface, and a folder in a state directory.

Below ``<state-dir>/data/``, one folder for each data path and way to decode it::

    <path>-<form>/lock          held by the process that writes
    <path>-<form>/path          the data path, in words
    <path>-<form>/x-<random>    the samples, one after another
    <path>-<form>/index         which they are

The index is written last and atomically; it names the file of samples, of which nothing
that an index speaks of is ever written again. So a crash leaves the old cache or the
new one, and nobody's mapped samples change.

Of one data path the caches of the two forms used last are kept; those of data paths
that are no longer there are removed.

Not here: files without a name (``unnamed``).
"""

import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from common.files import atomic_write, make_folder, remove_partial
from common.own.index import Index

FORMS_KEPT = 2
BUFFER = 2**20
_NAME = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}")


class Place(ABC):
    """Holds one index and its file of samples."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[None]:
        """Let one writer in at a time."""

    @abstractmethod
    def read(self) -> Index | None:
        """Return the index; None if there is none, or it is damaged."""

    @abstractmethod
    def opened(self, index: Index) -> IO[bytes] | None:
        """Open the samples of an index for reading; None if they are gone."""

    @abstractmethod
    def at_end(self, index: Index, size: int) -> IO[bytes]:
        """Open the samples to write behind the first ``size`` bytes of them."""

    @abstractmethod
    def fresh(self) -> IO[bytes]:
        """Open a new file to write samples to."""

    @abstractmethod
    def commit(self, index: Index, file: IO[bytes]) -> Index:
        """Make an index and the file that was written for it the ones that count."""

    @abstractmethod
    def abandon(self, file: IO[bytes], index: Index | None, size: int) -> None:
        """Give back the room of what was written after all for nothing.

        Parameters
        ----------
        file : binary file
            Closed.
        index : Index or None
            That counts still.
        size : int
            Bytes of its samples.
        """

    @abstractmethod
    def written(self, file: IO[bytes]) -> int:
        """Return when a file was last written, in ns."""

    @abstractmethod
    def used(self) -> None:
        """Note that this place is in use."""


class Folder(Place):
    """In a folder, for all processes and until it is removed.

    Parameters
    ----------
    folder : Path
        ``<path>-<form>``, each of 16 hexadecimal digits.
    path : Path
        The data path.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self._path = folder, path
        make_folder(folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock, which the death of its holder releases."""
        with (self.folder / "lock").open("ab") as handle:
            with suppress(ImportError, OSError):  # not POSIX; some network file systems
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def read(self) -> Index | None:
        """Return the index that was committed last."""
        try:
            return Index.from_bytes((self.folder / "index").read_bytes())
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def opened(self, index: Index) -> IO[bytes] | None:
        """Open the samples of an index; None if another one took its place."""
        try:
            return (self.folder / Path(index.file).name).open("rb")
        except OSError:
            return None

    def at_end(self, index: Index, size: int) -> IO[bytes]:
        """Open the samples, without what a killed writer left behind them."""
        file = (self.folder / index.file).open("r+b", buffering=BUFFER)
        file.truncate(size)
        file.seek(size)
        return file

    def fresh(self) -> IO[bytes]:
        """Make a file of another name."""
        with atomic_write(self.folder / "path") as note:
            note.write(os.fsencode(self._path))
        return tempfile.NamedTemporaryFile(
            dir=self.folder, prefix="x-", delete=False, buffering=BUFFER
        )

    def commit(self, index: Index, file: IO[bytes]) -> Index:
        """Sync the samples, then put the index in its place, then tidy up."""
        file.flush()
        os.fsync(file.fileno())
        name = Path(file.name).name
        index = replace(index, file=name, written=self.written(file))
        with atomic_write(self.folder / "index") as out:
            out.write(index.to_bytes())
        for other in self.folder.glob("x-*"):
            if other.name != name:
                with suppress(OSError):
                    other.unlink()
        remove_partial(self.folder)
        self._remove_others()
        return index

    def abandon(self, file: IO[bytes], index: Index | None, size: int) -> None:
        """Remove the file, or cut it to what it was."""
        path = self.folder / Path(file.name).name
        with suppress(OSError):
            if index is not None and path.name == index.file:
                os.truncate(path, size)
            else:
                path.unlink()

    def written(self, file: IO[bytes]) -> int:
        """Return when a file was last written, in ns."""
        return os.fstat(file.fileno()).st_mtime_ns

    def used(self) -> None:
        """Set the time of the index."""
        with suppress(OSError):
            os.utime(self.folder / "index")

    def _remove_others(self) -> None:
        mine = self.folder.name.partition("-")[0]
        same = []
        for other in self.folder.parent.iterdir():
            name = _NAME.fullmatch(other.name)
            if name is None or other == self.folder:
                continue
            with suppress(OSError):
                if name[1] == mine:
                    same.append(((other / "index").stat().st_mtime_ns, other))
                elif not Path(os.fsdecode((other / "path").read_bytes())).exists():
                    shutil.rmtree(other, ignore_errors=True)
        for _, other in sorted(same)[: -(FORMS_KEPT - 1)]:
            shutil.rmtree(other, ignore_errors=True)
