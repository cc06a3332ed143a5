"""How the C library hands memory back to the system while a client trains.

A step frees its activations and gradients and the next one asks for as much again. By
default glibc gives a freed end of the heap of some tens of megabytes back to the
system, which then clears every page anew: up to a fifth of the time of a step of a
convolution. What a client takes of a device is its peak, and that hardly changes; a
device's process ends with its message, and all it kept with it.
"""

import ctypes
import os
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the options in malloc.h."""

_MAPPED = 32 * 2**20
"""Larger blocks still come from the system and leave no holes: glibc's limit."""

_KEPT = 2**31 - 1

USER_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Variables by which a user has decided."""


@cache
def keep_freed_memory() -> bool:
    """Let this process use freed memory again instead of giving it back.

    Nothing happens where another C library allocates, or where the environment holds
    one of ``USER_VARIABLES``.

    Returns
    -------
    bool
        Whether it was set.
    """
    if sys.platform != "linux" or any(name in os.environ for name in USER_VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MAPPED) and mallopt(_TRIM_THRESHOLD, _KEPT))
