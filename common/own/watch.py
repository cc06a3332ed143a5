"""Whether anything below a data path has changed, without opening a file."""

import os
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Any

from common.own.array_files import NAMES
from common.own.folders import is_hidden


def state_of(path: Path, *more: str) -> str:
    """Return a hash of the names, sizes and times of all files.

    Parameters
    ----------
    path : Path
        A file, or a folder; links are followed. Hidden files are left out.
    *more : str
        What else the use of the files depends on.

    Returns
    -------
    str
        32 hexadecimal digits. Times are those of the content and of the file's
        permissions: one that could not be read may be readable now.
    """
    digest = blake2b(repr(more).encode(), digest_size=16)
    _add(digest, path, "", ())
    if path.suffix.lower() == ".npy":  # its labels lie beside it
        for name in sorted(NAMES):
            _add(digest, path.with_name(f"{name}.npy"), name, ())
    return digest.hexdigest()


def _add(
    digest: Any, path: str | Path, name: str, above: tuple[tuple[int, int], ...]
) -> None:
    try:
        status = os.stat(path)  # noqa: PTH116 - of ten thousand files, most are str
        key = status.st_dev, status.st_ino
        if not stat.S_ISDIR(status.st_mode):
            facts: object = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        elif key in above:
            facts = "circle"
        else:
            with os.scandir(path) as entries:
                inside = sorted((e.name, e.path) for e in entries)
            for each, below in inside:
                if not is_hidden(each):
                    _add(digest, below, f"{name}/{each}", (*above, key))
            facts = "folder"
    except OSError as error:
        facts = error.errno
    digest.update(repr((name, facts)).encode("utf-8", "surrogatepass"))
