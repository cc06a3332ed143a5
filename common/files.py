"""Writing files so that a power cut leaves the old one or the new one, never half."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path``; flush, sync and rename it at the end.

    If the block raises, the temporary file goes and ``path`` stays as it was.

    Parameters
    ----------
    mode : int
        Permissions of the file, from the moment it can be seen under its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - renamed, not deleted
        dir=path.parent, prefix=f".{path.name}-", delete=False
    )
    try:
        with file:
            yield file
            file.flush()
            os.chmod(file.name, mode)
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except BaseException:
        os.unlink(file.name)
        raise
    _sync_directory(path.parent)


def _sync_directory(folder: Path) -> None:
    # The rename itself is only durable once the directory is on the disk.
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # directories cannot be opened on every platform
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
