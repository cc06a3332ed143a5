"""Which of the things that lie at a path are read, and own readers."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError, SettingsError
from common.own.found import Found, Skipped
from common.task import ImageTask, TableTask, TextTask
from tests.common.own.finding import found, labels

TABLE = TableTask(classes=("ok", "worn"), columns=("u",))
ROWS = "u,label\n1,ok\n"


def test_files_of_one_format_are_all_read(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "2024/c.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(ROWS)
    assert [name for name, _ in labels(tmp_path, TABLE)] == [
        "2024/c.csv#2",
        "a.csv#2",
        "b.csv#2",
    ]


def test_two_formats_of_many_samples_are_not_chosen_from(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(ROWS)
    np.savez(tmp_path / "a.npz", x=[[1.0]], y=[0])
    with pytest.raises(DataError, match=r"several formats, a\.csv and a\.npz: keep"):
        found(tmp_path, TABLE)
    assert len(labels(tmp_path / "a.csv", TABLE)) == 1


def test_what_lies_beside_the_data_is_named(tmp_path: Path) -> None:
    task = ImageTask(classes=("cat", "dog"), size=(2, 2))
    (tmp_path / "cat").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "cat" / "a.png")
    np.savez(tmp_path / "features.npz", x=[[1.0]], y=[0])
    (tmp_path / "other.csv").write_text(ROWS)
    (tmp_path / "notes.md").write_text("hello")
    samples, skipped = found(tmp_path, task)
    assert [s.name for s in samples] == ["cat/a.png"]
    assert skipped == {
        "features.npz": "not read: cat/a.png is of another format",
        "notes.md": ".md is no image data",
        "other.csv": "other.csv has no column 'file_name' (it has u, label)",
    }


def test_a_note_beside_a_table_is_no_text(tmp_path: Path) -> None:
    task = TextTask(classes=("good", "bad"), length=4, vocabulary=64)
    (tmp_path / "a.csv").write_text("text,label\nfine,good\n")
    (tmp_path / "README.txt").write_text("hello")
    samples, skipped = found(tmp_path, task)
    assert [s.name for s in samples] == ["a.csv#2"]
    assert [*skipped] == ["README.txt"]


def test_a_file_is_for_testing_beside_one_for_training(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text(ROWS)
    (sample,), _ = found(tmp_path, TABLE)
    assert not sample.test
    (tmp_path / "train-00000-of-00001.csv").write_text(ROWS)
    samples, _ = found(tmp_path, TABLE)
    assert [s.test for s in samples] == [True, False]


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.png"])
def test_a_file_of_no_format_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=re.escape("expected table data: .csv, .jsonl")):
        found(tmp_path / name, TABLE)


def own(read: Any, monkeypatch: pytest.MonkeyPatch) -> TableTask:
    module = ModuleType("readers_of_a_test")
    module.read = read  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return TABLE.model_copy(update={"reader": "readers_of_a_test:read"})


def test_an_own_reader_gives_arrays_or_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = own(lambda path, tokens: {"x": np.ones((1, 1)), "y": [1]}, monkeypatch)
    assert [label for _, label in labels(tmp_path, task)] == [1]

    def samples(path: Path, tokens: object) -> Iterator[Found | Skipped]:
        yield Found(name="a", label="ok", value=lambda: np.ones(1), stamp=(1,))
        yield Skipped("b", "broken")

    read, skipped = found(tmp_path, own(samples, monkeypatch))
    assert [s.name for s in read] == ["a"] and skipped == {"b": "broken"}


def test_an_own_reader_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = own(lambda path, tokens: 1 / 0, monkeypatch)
    with pytest.raises(DataError, match="by readers_of_a_test:read: ZeroDivision"):
        found(tmp_path, task)
    with pytest.raises(SettingsError, match="gave a int: expected arrays by name"):
        found(tmp_path, own(lambda path, tokens: [1], monkeypatch))
