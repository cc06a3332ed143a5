"""What the control group of this process allows it: memory and processors.

Inside a container the operating system reports the host; the limits are in the files of
the process's own control group and of every group above it. Both versions: boards have
version 2, many container hosts still version 1.
"""

from collections.abc import Iterator
from pathlib import Path

NO_LIMIT = 2**60
"""Version 1 writes a number above any memory where nothing is limited."""


# Files of limit and usage, and the field of memory.stat with the cache.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class Cgroup:
    """The control group of this process.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are; another one than ``/`` in tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._mount = root / "sys/fs/cgroup"
        self._paths: dict[str, str] = {}
        for line in _read(root / "proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                self._paths[controller] = path

    def memory_limit(self) -> int | None:
        """Return the tightest limit in bytes, None if there is none."""
        return min((limit for limit, _ in self._memory()), default=None)

    def memory_free(self) -> int | None:
        """Return the bytes that may still be taken before a limit is met.

        File cache that the kernel drops on demand counts as free.
        """
        return min(
            (max(0, limit - used) for limit, used in self._memory()), default=None
        )

    def cores(self) -> float | None:
        """Return the processors the quota amounts to, None if there is no quota."""
        quotas = []
        for folder in self._levels("cpu"):
            v1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            words = _read(folder / "cpu.max").split() or [_read(folder / n) for n in v1]
            quota, period = (_number(word) for word in words[:2])
            if quota and period and quota > 0:
                quotas.append(quota / period)
        return min(quotas, default=None)

    def _memory(self) -> Iterator[tuple[int, int]]:
        """Yield (limit, used) of every level that has a limit."""
        for folder in self._levels("memory"):
            for limit_file, usage_file, cache in (_V2, _V1):
                limit = _number(_read(folder / limit_file))
                if limit is not None and limit < NO_LIMIT:
                    used = _number(_read(folder / usage_file)) or 0
                    yield limit, used - _field(folder / "memory.stat", cache)

    def _levels(self, controller: str) -> Iterator[Path]:
        """Yield the folders of this process's group and those above, innermost first.

        In a container the path may be the host's and not exist: the container's own
        group is then the root of what is mounted.
        """
        if controller in self._paths:
            mounts = sorted(self._mount.glob(f"*{controller}*"))
            named = [f for f in mounts if controller in f.name.split(",")]
            base = (named or [self._mount / controller])[0]
            path = self._paths[controller]
        else:
            base, path = self._mount, self._paths.get("", "/")
            # Hybrid hosts mount version 2 beside version 1.
            if (base / "unified").is_dir():
                base = base / "unified"
        folder = base / path.lstrip("/")
        for level in (folder, *folder.parents):
            if level.is_dir():
                yield level
            if level == base:
                return


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # "max", or no such file
        return None


def _field(path: Path, name: str) -> int:
    fields = dict(line.partition(" ")[::2] for line in _read(path).splitlines())
    return _number(fields.get(name, "")) or 0
