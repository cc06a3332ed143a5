"""What this device can hold and how much of it is there for us.

Container limits come first: inside a container psutil reports the host.
"""

import os
from pathlib import Path

import psutil

# cgroup v2, then v1; most boards have v2, many container hosts still v1.
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_bytes() -> int:
    """Return the bytes this process may use: the cgroup's limit, else the host's."""
    total = int(psutil.virtual_memory().total)
    for path in _MEMORY_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        # v1 says "no limit" with a number above any memory.
        if text.isdigit():
            return min(int(text), total)
    return total


def cores() -> int:
    """Return the number of CPU cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1
