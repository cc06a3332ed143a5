"""What on this device training needs: disk, memory, its data, a torch that runs.

Looked at without torch in this process: on a processor it was not built for it dies.
What is in the data is ``client_app.data_report``'s business.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from client_app.device.cgroup import Cgroup
from client_app.device.finding import Finding
from client_app.device.profiler import memory

LEAST_DISK = 64 * 2**20
"""Bytes for gates, decoded samples and logs of the first rounds."""

LEAST_MEMORY = 160 * 2**20
"""Bytes: importing torch takes as much before there is anything to train."""

LOOKED_AT = 2000
"""Files of a folder that are tried; a million would take minutes on an SD card."""

TORCH_PATIENCE = 300.0
"""Seconds: importing torch takes half a minute on a small board that is busy."""

_TRY = """
import torch
x = torch.ones(32, 32, requires_grad=True)
torch.relu(x @ x).sum().backward()
print(torch.__version__)
"""


def look_around(node: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what a device's own state, memory and data are like.

    Parameters
    ----------
    node : mapping
        Its node configuration.
    """
    yield disk(Path(str(node.get("state-dir") or ".")))
    yield free_memory(int(node.get("memory-bytes") or 0))
    yield data(node)


def disk(folder: Path) -> Finding:
    """Look whether gates can be kept in a folder, which need not be there yet."""
    folder = folder.absolute()
    there = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        text = f"{there} cannot be looked at: {error.strerror}"
        return Finding(check="disk", text=text, ok=False)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        text = f"{there} cannot be written to by this user: --state-dir DIR elsewhere"
        return Finding(check="disk", text=text, ok=False)
    if free < LEAST_DISK:
        text = (
            f"{_size(free)} free at {there}, less than {_size(LEAST_DISK)}: make room, "
            "or --state-dir DIR elsewhere"
        )
        return Finding(check="disk", text=text, ok=False)
    return Finding(check="disk", text=f"{_size(free)} free at {there}")


def free_memory(cap: int = 0, cgroup: Cgroup | None = None) -> Finding:
    """Look whether there is memory to train in, under the limit that this process has.

    Parameters
    ----------
    cap : int
        Bytes that the owner allows; 0 for no cap.
    """
    group = cgroup or Cgroup()
    has, limit = memory(cap, group), group.memory_limit()
    total, free = has["memory_bytes"], has["memory_available"]
    whose = "this machine's, there is no other limit"
    if total == cap:
        whose = "memory-bytes"
    elif total == limit:
        whose = "the control group's limit"
    found = f"{_size(free)} of {_size(total)} ({whose}) to train in"
    if free < LEAST_MEMORY:
        text = f"{found}, less than torch alone takes: allow it more, or end others"
        return Finding(check="memory", text=text, ok=False)
    return Finding(check="memory", text=found)


def data(node: Mapping[str, Any]) -> Finding:
    """Look whether this user can read the data that the device says it has."""
    said = node.get("data-path")
    if not said and node.get("num-partitions"):
        share = f"share {node.get('partition-id')} of {node['num-partitions']}"
        return Finding(check="data", text=f"{share} of the run's own data set")
    if not (said := said or node.get("data-dir")):
        text = (
            "none of its own: a run with a task needs --data-path PATH, one without "
            "takes the data set that it names"
        )
        return Finding(check="data", text=text)
    path = Path(str(said)).expanduser()
    try:
        files = [path] if path.is_file() else list(_files(path))
        for file in files:
            with file.open("rb"):
                pass
    except OSError as error:
        text = f"{error.filename or path}: {error.strerror}: --data-path PATH"
        return Finding(check="data", text=text, ok=False)
    if not files:
        text = f"there is nothing in {path}: --data-path PATH, or is a disk missing?"
        return Finding(check="data", text=text, ok=False)
    more = " or more" if len(files) == LOOKED_AT else ""
    count = "1 file" if len(files) == 1 else f"{len(files)}{more} files"
    return Finding(check="data", text=f"{path}, {count}")


def _files(folder: Path) -> Iterator[Path]:
    if not folder.exists():
        raise FileNotFoundError(2, "there is nothing", str(folder))
    left = LOOKED_AT
    for place, _, names in os.walk(folder, onerror=_raise, followlinks=True):
        for name in names[:left]:
            yield Path(place, name)
        left -= len(names[:left])
        if not left:
            return


def _raise(error: OSError) -> None:
    raise error


def torch_runs() -> Finding:
    """Let another process import torch and take a step."""
    command = [sys.executable, "-c", _TRY]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=TORCH_PATIENCE
        )
    except subprocess.TimeoutExpired:
        text = f"it took no step in {TORCH_PATIENCE:.0f} s: what else runs here?"
        return Finding(check="torch", text=text, ok=False)
    if ran.returncode == 0:
        return Finding(check="torch", text=f"{ran.stdout.strip()} takes a step")
    text = f"it fails: {(ran.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    if ran.returncode == -signal.SIGILL:
        text = (
            "it was not built for this processor (illegal instruction): install the "
            "version that docker/README.md names"
        )
    elif ran.returncode < 0:
        text = f"it was killed ({signal.Signals(-ran.returncode).name}): out of memory?"
    return Finding(check="torch", text=text, ok=False)


def _size(number: int) -> str:
    return f"{number / 2**20:,.0f} MiB"
