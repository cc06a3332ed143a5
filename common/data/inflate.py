"""How large a compressed file may become: a few kilobytes can unpack to terabytes."""

from pathlib import Path

import psutil

from common.errors import DataError

RATIO = 250
"""Most bytes from one, beyond ``ALWAYS``; images come to about 2, texts to 10."""

ALWAYS = 2**28
"""Bytes any file may unpack to, however small it is."""


def most_bytes(path: Path) -> int:
    """Return the bytes a file may unpack to here: what fits into memory, at most."""
    return min(
        int(psutil.virtual_memory().available),
        max(ALWAYS, RATIO * path.stat().st_size),
    )


def check_inflated(path: Path, nbytes: int, most: int) -> None:
    """Refuse what unpacks to more than ``most`` bytes.

    Raises
    ------
    DataError
    """
    if nbytes > most:
        raise DataError(
            f"{path} unpacks to more than {most / 2**20:,.0f} MiB: expected at most "
            f"{RATIO} times its own size, and what is free of this machine's memory"
        )
