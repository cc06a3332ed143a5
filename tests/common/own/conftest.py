"""A folder of samples, a cache for them, and a reader that counts what it decodes."""

from pathlib import Path

import pytest

from common.own import own_data
from tests.common.own.files import Reader, write_many


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
