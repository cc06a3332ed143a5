"""A power cut, played: what a disk may still have of a directory.

:class:`Disk` watches a directory from inside the process that writes it, and knows
nothing of how the writer goes about it. It notes what is synced: the bytes of a file,
the names in a directory. :func:`survive` then makes what a power cut may leave:

- of a file, the bytes that were synced last; what was written since is there, missing,
  cut at a random byte, or zeros from there on;
- of a directory, the names that were in it when it was synced last; each that was made,
  replaced or removed since is as it was or as it is, by chance and by itself.

That is all that POSIX promises, and less than most file systems keep.
"""

import json
import os
import random
import resource
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ".names"
"""What the note of a directory ends with; a file may hold JSON as well."""

SYNCS = ("fsync", "fdatasync")
CHANGES = ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir")


class Disk:
    """Notes what is on the disk for certain, in files that survive the process.

    Parameters
    ----------
    root : Path
        What is watched; all that is in it now counts as synced.
    journal : Path
        Where the notes are kept, outside of ``root``.
    cut : callable, optional
        Called at moment ``at``.
    at : int
        Moments are counted from 1: before and after every sync and every change of a
        name.

    Attributes
    ----------
    moments : int
        How many there were so far.
    """

    def __init__(
        self,
        root: Path,
        journal: Path,
        cut: Callable[[], None] = lambda: None,
        at: int = 0,
    ) -> None:
        self.moments = 0
        self._root, self._journal = root.resolve(), journal
        self._cut, self._at = cut, at
        self._pinned: dict[int, int] = {}
        self._originals: dict[str, Any] = {}
        self._alone = threading.RLock()

    def __enter__(self) -> "Disk":
        """Take what is there as synced, and watch from now on."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        self._journal.mkdir(parents=True, exist_ok=True)
        self._root.mkdir(parents=True, exist_ok=True)
        for folder, _, files in os.walk(self._root):
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                self._note(path)
        for name in (*SYNCS, *CHANGES):
            self._originals[name] = getattr(os, name)
            setattr(os, name, self._watched(self._originals[name], name in SYNCS))
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no longer."""
        for name, original in self._originals.items():
            setattr(os, name, original)
        for descriptor in self._pinned.values():
            os.close(descriptor)

    def _watched(self, original: Any, is_sync: bool) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._moment()
            found = original(*args, **kwargs)
            if is_sync:
                number = args[0] if isinstance(args[0], int) else args[0].fileno()
                file = Path(f"/proc/self/fd/{number}")
                if file.readlink().is_relative_to(self._root):
                    self._note(file)
            self._moment()
            return found

        return call

    def _moment(self) -> None:
        with self._alone:
            self.moments += 1
            if self.moments == self._at:
                self._cut()

    def _note(self, path: Path) -> None:
        """Write down what is synced of a file or directory."""
        with self._alone:
            found = path.stat()
            if found.st_ino not in self._pinned:
                # Held open, so that no other file gets its number.
                self._pinned[found.st_ino] = os.open(path, os.O_RDONLY)
            note = str(found.st_ino)
            if stat.S_ISDIR(found.st_mode):
                note += NAMES
                with os.scandir(path) as entries:
                    names = {entry.name: entry.inode() for entry in entries}
                data = json.dumps(names).encode()
            else:
                data = path.read_bytes()
            partial = self._journal / f"{found.st_ino}.partial"
            partial.write_bytes(data)
            # Not through the watched functions.
            rename = self._originals.get("rename", os.rename)
            rename(partial, self._journal / note)


def survive(root: Path, journal: Path, target: Path, rng: random.Random) -> None:
    """Make in ``target`` what of ``root`` a power cut at this moment may leave."""
    now: dict[int, Path] = {}
    for folder, _, files in os.walk(root):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            now[path.stat().st_ino] = path
    _Survivors(now, journal, rng).make(root.stat().st_ino, target)


class _Survivors:
    def __init__(self, now: dict[int, Path], journal: Path, rng: random.Random) -> None:
        self._now, self._journal, self._rng = now, journal, rng

    def make(self, number: int, target: Path) -> None:
        """Make one file or directory, known by its number."""
        path = self._now.get(number)
        if path is not None and path.is_dir():
            self._make_folder(number, path, target)
        elif path is None and (names := self._names(number)) is not None:
            target.mkdir()
            for name, inner in names.items():
                self.make(inner, target / name)
        else:
            target.write_bytes(self._bytes(number, path))

    def _make_folder(self, number: int, path: Path, target: Path) -> None:
        target.mkdir()
        with os.scandir(path) as entries:
            are = {entry.name: entry.inode() for entry in entries}
        were = self._names(number) or {}
        for name in sorted(are.keys() | were.keys()):
            chosen = self._rng.choice([are.get(name), were.get(name)])
            if chosen is not None:
                self.make(chosen, target / name)

    def _names(self, number: int) -> dict[str, int] | None:
        data = self._noted(f"{number}{NAMES}")
        return None if data is None else dict(json.loads(data))

    def _noted(self, note: str) -> bytes | None:
        path = self._journal / note
        return path.read_bytes() if path.exists() else None

    def _bytes(self, number: int, path: Path | None) -> bytes:
        synced = self._noted(str(number)) or b""
        written = synced if path is None else path.read_bytes()
        if written == synced:
            return synced
        cut = self._rng.randint(0, len(written))
        if written.startswith(synced):
            cut = self._rng.randint(len(synced), len(written))
        kept = written[:cut]
        return self._rng.choice(
            [synced, kept, kept + bytes(len(written) - cut), written]
        )
