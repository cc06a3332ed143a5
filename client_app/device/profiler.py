"""What this device is and what of it is there for us.

Control groups come first: inside a container the operating system reports the host.
Whatever cannot be found out is None, and is said to be unknown.
"""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import psutil

from client_app.device.cgroup import Cgroup
from client_app.device.resident.hand_over import NOTES


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A device as it is now.

    Attributes
    ----------
    cores : float
        Processors this process may use; a container's quota may be a fraction.
    memory_bytes : int
        Memory this process could ever have: the tightest limit, else the machine's.
    memory_available : int
        What it could have now, with what it has already and beside everybody else.
    process_bytes : int
        What it has already.
    disk_free : int or None
        Bytes below the state directory.
    board, gpu : str or None
    temperature : float or None
        Degrees Celsius.
    throttled : bool or None
        Whether the processor is being slowed down.
    flwr : str
        The version of Flower that runs here.
    """

    cores: float
    memory_bytes: int
    memory_available: int
    process_bytes: int
    disk_free: int | None
    board: str | None
    temperature: float | None
    throttled: bool | None
    gpu: str | None
    flwr: str

    def lines(self) -> list[str]:
        """Return one readable line for each fact."""
        return [f"{f.name:<17} {_text(getattr(self, f.name))}" for f in fields(self)]


def profile(state_dir: str = "", memory_cap: int = 0) -> Profile:
    """Find out what this device is.

    Parameters
    ----------
    state_dir : str
        Where its files go; "" means the working directory.
    memory_cap : int
        Memory its owner allows; 0 means no cap.
    """
    # Asks torch for GPUs, which whoever looks at the memory alone has no need of.
    from client_app.device import sensors

    return Profile(
        **memory(memory_cap),
        cores=cores(),
        disk_free=_disk_free(Path(state_dir or ".")),
        board=sensors.board() or None,
        temperature=sensors.temperature(),
        throttled=sensors.throttled(),
        gpu=sensors.gpu() or None,
        flwr=version("flwr"),
    )


def memory(memory_cap: int = 0, cgroup: Cgroup | None = None) -> dict[str, int]:
    """Return ``memory_bytes``, ``memory_available`` and ``process_bytes``."""
    group = cgroup or Cgroup()
    host = psutil.virtual_memory()
    mine = _resident(psutil.Process())
    limits = [int(host.total), group.memory_limit(), memory_cap or None]
    free = [int(host.available), group.memory_free()]
    available = mine + min(each for each in free if each is not None)
    limit = min(each for each in limits if each is not None)
    return {
        "memory_bytes": limit,
        "memory_available": min(limit, available),
        "process_bytes": mine,
    }


def _resident(process: psutil.Process) -> int:
    """Return the bytes of a process, as if it had not been forked for one message.

    What is mapped from files, torch above all, a fork maps when it comes to it. The
    process it was forked from has it, and counts in the control group.
    """
    has = process.memory_info()
    if NOTES not in os.environ:
        return int(has.rss)
    with suppress(psutil.Error):
        mapped = psutil.Process(os.getppid()).memory_info().shared
        return int(has.rss + max(0, mapped - has.shared))
    return int(has.rss)


def cores(cgroup: Cgroup | None = None) -> float:
    """Return the processors this process may use."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        usable = os.cpu_count() or 1
    quota = (cgroup or Cgroup()).cores()
    return float(usable) if quota is None else min(float(usable), quota)


def peak_bytes() -> int:
    """Return the most memory this process has had so far, 0 where unknown.

    Not ``getrusage``: its peak may be of the process this one was forked from.
    """
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _disk_free(folder: Path) -> int | None:
    for existing in (folder.absolute(), *folder.absolute().parents):
        try:
            return shutil.disk_usage(existing).free
        except OSError:
            continue
    return None


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value > 10**6:
        return f"{value} ({value / 2**20:,.0f} MiB)"
    return f"{value:g}" if isinstance(value, float) else str(value)
