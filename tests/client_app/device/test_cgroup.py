"""Limits of control groups, in fake trees and in a real one where that is allowed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from client_app.device.cgroup import Cgroup
from client_app.device.profiler import cores, memory

MIB = 2**20


def tree(root: Path, files: Mapping[str, str]) -> Cgroup:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return Cgroup(root)


V2 = {
    "proc/self/cgroup": "0::/pods/trainer",
    "sys/fs/cgroup/pods/trainer/memory.max": "max",
    "sys/fs/cgroup/pods/trainer/memory.current": str(300 * MIB),
    "sys/fs/cgroup/pods/trainer/cpu.max": "max 100000",
    "sys/fs/cgroup/pods/memory.max": str(1000 * MIB),
    "sys/fs/cgroup/pods/memory.current": str(700 * MIB),
    "sys/fs/cgroup/pods/memory.stat": f"anon 1\ninactive_file {200 * MIB}",
    "sys/fs/cgroup/pods/cpu.max": "150000 100000",
}


def test_version_2_own_group_and_those_above(tmp_path: Path) -> None:
    group = tree(tmp_path, V2)
    # Only the parent limits; of its 700 MiB 200 are cache that can be dropped.
    assert group.memory_limit() == 1000 * MIB
    assert group.memory_free() == 500 * MIB
    assert group.cores() == 1.5


def test_version_2_inside_a_container(tmp_path: Path) -> None:
    # With a cgroup namespace the own group is the root of what is mounted.
    files = {
        "proc/self/cgroup": "0::/",
        "sys/fs/cgroup/memory.max": str(512 * MIB),
        "sys/fs/cgroup/memory.current": str(600 * MIB),
        "sys/fs/cgroup/cpu.max": "50000 100000",
    }
    group = tree(tmp_path, files)
    assert (group.memory_limit(), group.memory_free()) == (512 * MIB, 0)
    assert group.cores() == 0.5
    assert cores(group) == 0.5


def test_version_1(tmp_path: Path) -> None:
    base = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/ab\n3:memory:/docker/ab\n0::/x",
        f"{base}/memory/memory.limit_in_bytes": str(2**63 - 4096),
        f"{base}/memory/docker/ab/memory.limit_in_bytes": str(800 * MIB),
        f"{base}/memory/docker/ab/memory.usage_in_bytes": str(300 * MIB),
        f"{base}/memory/docker/ab/memory.stat": f"total_inactive_file {100 * MIB}",
        f"{base}/cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "200000",
        f"{base}/cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000",
        f"{base}/cpu,cpuacct/cpu.cfs_quota_us": "-1",
        f"{base}/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    group = tree(tmp_path, files)
    assert group.memory_limit() == 800 * MIB
    assert group.memory_free() == 600 * MIB
    assert group.cores() == 2.0


def test_version_1_with_the_path_of_the_host(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "3:memory:/docker/ab",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(256 * MIB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "0",
    }
    assert tree(tmp_path, files).memory_limit() == 256 * MIB


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/"},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "many"},
    ],
)
def test_without_limits_the_machine_is_reported(
    files: dict[str, str], tmp_path: Path
) -> None:
    group = tree(tmp_path, files)
    assert (group.memory_limit(), group.memory_free(), group.cores()) == (None,) * 3
    found = memory(0, group)
    assert found["process_bytes"] < found["memory_available"] <= found["memory_bytes"]
    assert cores(group) == len(os.sched_getaffinity(0))


def test_the_tightest_of_group_machine_and_owner_counts(tmp_path: Path) -> None:
    group = tree(tmp_path, V2)
    mine = memory(0, group)["process_bytes"]
    assert memory(0, group)["memory_bytes"] == 1000 * MIB
    available = memory(0, group)["memory_available"]
    assert available == pytest.approx(min(500 * MIB + mine, 1000 * MIB), abs=20 * MIB)
    assert memory(300 * MIB, group)["memory_bytes"] == 300 * MIB
    assert memory(300 * MIB, group)["memory_available"] <= 300 * MIB


@pytest.fixture
def limited() -> Iterator[Path]:
    """A real control group of 2 GB, removed afterwards."""
    name = f"expertfleet-test-{os.getpid()}"
    for base, limit in (
        (Path("/sys/fs/cgroup"), "memory.max"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    ):
        folder = base / name
        with suppress(OSError):
            folder.mkdir()
            try:
                (folder / limit).write_text(str(2000 * MIB))
                if (folder / "cgroup.procs").exists():
                    yield folder
                    return
            except OSError:
                pass
            finally:
                with suppress(OSError):
                    folder.rmdir()
    pytest.skip("no control group may be made here: that takes root on a real machine")


def test_the_profile_inside_a_real_group_reports_the_limit(limited: Path) -> None:
    join = f'echo $$ > {limited}/cgroup.procs && exec "$@"'
    command = [sys.executable, "-m", "client_app", "profile", "--json"]
    done = subprocess.run(
        ["sh", "-c", join, "sh", *command], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["memory_bytes"] == 2000 * MIB
    assert found["process_bytes"] < found["memory_available"] <= 2000 * MIB
