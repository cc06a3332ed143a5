"""Readers of the user's own, by name and by the ending of the file."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import Dataset, HashedPieces, load_dataset
from common.errors import DataError, SettingsError


def columns(path: Path, tokeniser: Any) -> Any:
    """A reader: the last column is the label, every third row is the test set."""
    table = np.loadtxt(path, delimiter=",")
    x, y, test = table[:, :-1], table[:, -1].astype(int), np.arange(len(table)) % 3 == 2
    return {
        "x_train": x[~test],
        "y_train": y[~test],
        "x_test": x[test],
        "y_test": y[test],
    }


def folder(path: Path, tokeniser: Any) -> Any:
    """A reader of a directory, which answers with a whole data set."""
    x = tokeniser.encode(text.read_text() for text in sorted(path.iterdir()))
    y = np.array([0, 1])
    return Dataset(
        name="?",
        x_train=x,
        y_train=y,
        x_test=x,
        y_test=y,
        num_classes=2,
        input_shape=(tokeniser.length,),
        vocabulary=tokeniser.vocabulary,
    )


def a_list(path: Path, tokeniser: Any) -> Any:
    return [1, 2]


def without_labels(path: Path, tokeniser: Any) -> Any:
    return {"x_train": np.zeros((2, 2)), "x_test": np.zeros((2, 2))}


MINE = "tests.common.data.test_readers"
ROWS = "0.5,1,0\n0.25,2,1\n0.75,3,1\n"


def test_a_reader_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text(ROWS)
    data = load_dataset("sales.csv", tmp_path, reader=f"{MINE}:columns")
    assert data.x_train.tolist() == [[0.5, 1], [0.25, 2]]
    assert data.x_train.dtype == np.float32
    assert data.y_train.tolist() == [0, 1]
    assert (data.x_test.tolist(), data.y_test.tolist()) == ([[0.75, 3]], [1])
    assert (data.name, data.num_classes, data.input_shape) == ("sales.csv", 2, (2,))
    assert load_dataset("sales.csv", tmp_path, reader=f"{MINE}:columns") is data


def test_an_installed_reader_is_found_by_the_ending_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"csv": EntryPoint("csv", f"{MINE}:columns", "expertfleet.readers")}
    monkeypatch.setattr("common.registry.installed_parts", lambda _: points)
    (tmp_path / "sales.csv").write_text(ROWS)
    for reader in ("", "csv"):
        assert load_dataset("sales", tmp_path, reader=reader).y_train.tolist() == [0, 1]
    with pytest.raises(DataError, match="did you mean 'sales'"):
        load_dataset("sale", tmp_path)


def test_a_directory_can_be_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for name, text in (("a", "one two"), ("b", "two")):
        (tmp_path / "notes" / name).write_text(text)
    tokeniser = HashedPieces(length=4, vocabulary=32)
    data = load_dataset("notes", tmp_path, tokeniser, reader=f"{MINE}:folder")
    assert (data.name, data.kind, data.x_train.shape) == ("notes", "int64", (2, 4))


@pytest.mark.parametrize(
    ("reader", "error", "says"),
    [
        ("csw", SettingsError, "reader = 'csw' is not allowed: choose from jsonl"),
        (f"{MINE}:a_list", SettingsError, "a_list' returned a list: expected arrays"),
        (f"{MINE}:without_labels", DataError, "has no array 'y_train'"),
        (f"{MINE}:columns", DataError, "cannot be read by .*columns: ValueError: "),
    ],
)
def test_what_is_no_reader_is_one_error_that_names_it(
    tmp_path: Path, reader: str, error: type[Exception], says: str
) -> None:
    (tmp_path / "sales").write_text("no,numbers\n")
    with pytest.raises(error, match=says):
        load_dataset("sales", tmp_path, reader=reader)
