"""Walking a folder: its files in the order of their names, and which class they lie in.

Not here: what is inside a file.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError, nearest
from common.own.found import Skipped, class_word, shown, stamp_of
from common.task import Task
from common.text import reason

TRAIN, TEST = "train", "test"
SPLITS = {
    **dict.fromkeys((TRAIN, "training"), TRAIN),
    **dict.fromkeys((TEST, "testing", "val", "valid", "validation"), TEST),
}
"""What parts for training are called, and those that their owner does not train on."""

SYSTEM = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"),
        *("$recycle.bin", "system volume information", "lost+found", "__pycache__"),
    }
)
"""Names, in small letters, that systems leave in every folder."""


@dataclass(frozen=True)
class Entry:
    """One file.

    Attributes
    ----------
    path : Path
    parts : tuple of str
        Folders from the one that was asked for, and the name of the file.
    stamp : tuple of int
        See :class:`~common.own.found.Found`.
    """

    path: Path
    parts: tuple[str, ...]
    stamp: tuple[int, ...]

    @property
    def name(self) -> str:
        """Path relative to the folder, with slashes on every system."""
        return shown("/".join(self.parts))

    @property
    def ending(self) -> str:
        """Of the file's name, in small letters, with its dot; "" for none."""
        return self.path.suffix.lower()


def entry_of(path: Path) -> Entry:
    """Return one file that was named itself.

    Raises
    ------
    DataError
        If there is none, or it is something else.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is neither a file nor a folder")
    return Entry(path, (path.name,), stamp_of(status))


def is_hidden(name: str) -> bool:
    """Whether a name is the system's own: dot files, and those of ``SYSTEM``."""
    return name.startswith((".", "~$")) or name.lower() in SYSTEM


def walk(root: Path) -> Iterator[Entry | Skipped]:
    """Yield the files below a folder; links are followed, but not in circles.

    Raises
    ------
    DataError
        If the folder itself cannot be read.
    """
    try:
        status = root.stat()
        names = sorted(each.name for each in root.iterdir())
    except OSError as error:
        raise DataError(f"{root} cannot be read: {reason(error)}") from None
    yield from _walk(root, (), names, ((status.st_dev, status.st_ino),))


def _walk(
    folder: Path,
    parts: tuple[str, ...],
    names: list[str],
    above: tuple[tuple[int, int], ...],
) -> Iterator[Entry | Skipped]:
    for name in names:
        if is_hidden(name):
            continue
        path, here = folder / name, (*parts, name)
        told = shown("/".join(here))
        try:
            status = path.stat()
            key = status.st_dev, status.st_ino
            is_folder = stat.S_ISDIR(status.st_mode)
            if is_folder and key in above:
                yield Skipped(told, "a link to a folder that it lies in")
                continue
            inside = sorted(p.name for p in path.iterdir()) if is_folder else []
        except OSError as error:
            yield Skipped(told, f"cannot be read: {reason(error)}")
            continue
        if is_folder:
            yield from _walk(path, here, inside, (*above, key))
        elif stat.S_ISREG(status.st_mode):
            yield Entry(path, here, stamp_of(status))
        else:
            yield Skipped(told, "is neither a file nor a folder")


def split_of(parts: tuple[str, ...], task: Task) -> tuple[str, tuple[str, ...]]:
    """Return ``train``, ``test`` or "", and the folders below it.

    Parameters
    ----------
    parts : tuple of str
        As of :class:`Entry`.
    """
    folders = parts[:-1]
    for depth, name in enumerate(folders):
        split, below = SPLITS.get(name.lower(), ""), folders[depth + 1 :]
        # A class may be called "test": it is one unless it holds folders of classes.
        holds = bool(below) and class_word(below[0], task) in task.number_of
        if split and (holds or class_word(name, task) not in task.number_of):
            return split, below
        if class_word(name, task) in task.number_of:
            break
    return "", folders


def class_of(folders: tuple[str, ...], task: Task) -> str | None:
    """Return the class that folders, outermost first, stand for.

    The first that has the name of a class; else the first that nearly has, or the
    first of all: whoever asks says that it is none. None where there is no folder.
    """
    words = [class_word(each, task) for each in folders]
    for word in words:
        if word in task.number_of:
            return word
    nearly = (word for word in words if nearest(word, task.classes))
    return next(nearly, words[0] if words else None)
