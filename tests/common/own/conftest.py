"""A folder of samples, a cache for them, and a reader that counts what it decodes."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import HashedPieces
from common.own import own_data
from common.own.found import Found
from common.own.own_data import OwnData, open_own_data
from common.task import Task
from tests.common.own.files import Give, Reader, write_many


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()
    monkeypatch.setattr(own_data, "find_samples", made)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_many(tmp_path / "data", 30)
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "data"


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Give:
    """Return a function that opens samples given as (label, values[, group])."""

    def give(task: Task, *given: tuple[Any, ...]) -> OwnData:
        found = [
            Found(
                name=f"t.csv#{i}",
                label=each[0],
                value=partial(np.asarray, each[1]),
                stamp=(i,),
                group=each[2] if len(each) > 2 else None,
            )
            for i, each in enumerate(given)
        ]
        monkeypatch.setattr(own_data, "find_samples", lambda *_: iter(found))
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        file.write_bytes(b"")
        return open_own_data(file, task, HashedPieces(), None)

    return give
