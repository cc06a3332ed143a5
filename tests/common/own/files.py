"""A reader for tests: every file ``<class>/<name>`` holds the bytes of one sample.

It counts what it decodes, so that a test can say what was decoded anew.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.data import HashedPieces
from common.errors import DataError
from common.own.found import Found, Skipped, stamp_of
from common.own.own_data import OwnData, open_own_data
from common.task import ImageTask, Task

TABLE: dict[str, Any] = {"kind": "table", "classes": ["a", "b"], "columns": ["t", "p"]}
Give = Callable[..., OwnData]
TASK = ImageTask(classes=("a", "b", "c"), size=(2, 2), channels=1)
WORDS = HashedPieces()


class Reader:
    """Put in the place of ``find_samples``; ``groups`` and ``tests`` go by name."""

    def __init__(self) -> None:
        self.decoded: list[str] = []
        self.asked = 0
        self.groups: dict[str, str] = {}
        self.turned = False

    def __call__(self, path: Path, task: Task, *_: object) -> Iterator[Found | Skipped]:
        self.asked += 1
        files = sorted(path.rglob("*.bin"), reverse=self.turned)
        for file in files:
            name = file.relative_to(path).as_posix()
            yield Found(
                name=name,
                label=file.parent.name,
                value=partial(self.read, file, name),
                stamp=stamp_of(file.stat()),
                group=self.groups.get(name),
                test=name.startswith("test/"),
            )

    def read(self, file: Path, name: str) -> np.ndarray:
        self.decoded.append(name)
        data = file.read_bytes()
        if len(data) != 4:
            raise DataError(f"has {len(data)} bytes")
        return np.frombuffer(data, dtype=np.uint8).reshape(2, 2, 1)

    def news(self) -> list[str]:
        """Return what was decoded since the last call."""
        decoded, self.decoded = self.decoded, []
        return decoded


def write(root: Path, name: str, data: bytes) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def write_many(root: Path, count: int, start: int = 0) -> None:
    for i in range(start, start + count):
        write(root, f"{'abc'[i % 3]}/{i:05d}.bin", bytes([i % 256, i // 256, 1, 2]))


def opened(root: Path, cache: Path | None, task: Task = TASK) -> OwnData:
    return open_own_data(root, task, WORDS, cache)


def samples(data: OwnData) -> list[tuple[bytes, int]]:
    """Return all samples and their classes, in the order of their names."""
    rows = np.concatenate([data.train, data.held_out])
    return sorted((data.x[row].tobytes(), int(data.y[row])) for row in rows)


def expected(root: Path) -> list[tuple[bytes, int]]:
    """Return what :func:`samples` has to return for a folder."""
    files = root.rglob("*.bin")
    return sorted((f.read_bytes(), "abc".index(f.parent.name)) for f in files)
