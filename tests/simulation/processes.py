"""Processes of a run, looked at while some of them end."""

from collections.abc import Iterable
from contextlib import suppress

import psutil


def titles(processes: Iterable[psutil.Process]) -> dict[psutil.Process, str]:
    """Return the name and the command of each that is still there, zombies excepted."""
    found = {}
    for process in processes:
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process] = " ".join([process.name(), *process.cmdline()])
    return found
