"""Writing files so that a power cut leaves the old one or the new one, never half.

A file is on the disk once it and the directory that names it have been synced; both are
done here, for new directories as well.
Also: whether a file has changed.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_SUFFIX = ".partial"
_LONGEST_PREFIX = 100


@contextmanager
def atomic_write(
    path: Path, mode: int = 0o600, *, synced: bool = True
) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path``; flush, sync and rename it at the end.

    If the block raises, the temporary file goes and ``path`` stays as it was.

    Parameters
    ----------
    mode : int
        Permissions of the file, from the moment it can be seen under its name.
    synced : bool
        Whether it outlives a power cut; if not it outlives the process all the same.
    """
    make_folder(path.parent)
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - renamed, not deleted
        dir=path.parent, prefix=_prefix(path), suffix=_SUFFIX, delete=False
    )
    try:
        with file:
            yield file
            file.flush()
            os.chmod(file.name, mode)
            if synced:
                os.fsync(file.fileno())
        os.replace(file.name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(file.name)
        raise
    if synced:
        _sync(path.parent)


def version(path: Path) -> Hashable:
    """Return something that changes with a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    # A copy may keep time and size of what it replaces, but not all of these.
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary directory beside ``path``; sync and rename all of it at the end.

    If the block raises, the temporary directory goes. ``path`` must not exist yet.
    """
    make_folder(path.parent)
    made = Path(tempfile.mkdtemp(_SUFFIX, _prefix(path), path.parent))
    try:
        yield made
        for folder, _, files in os.walk(made):
            for name in files:
                _sync(Path(folder, name))
            _sync(Path(folder))
        os.rename(made, path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    _sync(path.parent)


def hold_on_to(path: Path, name: Path) -> None:
    """Give a file that is written a second name in its directory, or a copy under it.

    What had that name goes.
    """
    made = path.parent / f"{_prefix(name)}{_SUFFIX}"
    with suppress(FileNotFoundError):
        made.unlink()
    try:
        os.link(path, made)
    except OSError:  # not every file system has links
        with atomic_write(name) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file)
        return
    os.replace(made, name)
    with suppress(FileNotFoundError):  # still there if both were the same file
        made.unlink()
    _sync(path.parent)


def durable_append(path: Path, data: bytes) -> None:
    """Add bytes to a file, made if need be; when it returns they are on the disk.

    If it raises, the file is as long as before, as far as the disk lets us.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if not size:
        _sync(path.parent)


def make_folder(folder: Path, *, new: bool = False) -> None:
    """Make a directory and those above it, each synced into the one that names it.

    Parameters
    ----------
    new : bool
        Raise FileExistsError if it is there already.
    """
    if folder.is_dir() and not new:
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if new or not folder.is_dir():
            raise
        return  # made by somebody else meanwhile, who syncs it
    _sync(folder.parent)


def remove_partial(folder: Path) -> None:
    """Remove what was half-written in a directory when its writer was killed.

    Only for a directory that nobody else writes to at the moment.
    """
    for path in folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError):
            if stat.S_ISDIR(path.lstat().st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()


def _prefix(path: Path) -> str:
    return f".{path.name[:_LONGEST_PREFIX]}-"


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # cannot be opened on every platform
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
