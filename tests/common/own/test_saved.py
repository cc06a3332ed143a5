"""Folders that the package ``datasets`` wrote, and images in Parquet files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from common.task import ImageTask, SeriesTask, TableTask, TextTask
from tests.common.own.finding import found, labels

hf: Any = pytest.importorskip("datasets")
TASK = ImageTask(classes=("cat", "dog"), size=(4, 4), label_column="animal")


def picture(level: int) -> Image.Image:
    return Image.new("L", (4, 4), level)


def animals(levels: list[int], kinds: list[int | None]) -> Any:
    features = hf.Features(
        {"picture": hf.Image(), "animal": hf.ClassLabel(names=["dog", "cat"])}
    )
    columns = {"picture": [picture(level) for level in levels], "animal": kinds}
    return hf.Dataset.from_dict(columns, features=features)


def test_images_are_named_by_the_files_own_classes(tmp_path: Path) -> None:
    animals([10, 20, 30], [1, 0, None]).save_to_disk(tmp_path / "site")
    samples, skipped = found(tmp_path / "site", TASK)
    assert [(s.name, s.label) for s in samples] == [
        ("site#1", "cat"),
        ("site#2", "dog"),
    ]
    assert skipped == {"site#3": "animal is empty"}
    assert [s.value().mean() for s in samples] == [10, 20]
    # A folder that holds one is read as well.
    assert [s.name for s in found(tmp_path, TASK)[0]] == ["site#1", "site#2"]


def test_rows_that_were_chosen_or_moved_are_those_that_are_read(tmp_path: Path) -> None:
    animals([10, 20, 30], [1, 0, 1]).select([2, 0]).save_to_disk(tmp_path / "site")
    samples, _ = found(tmp_path / "site", TASK)
    assert [(s.label, s.value().mean()) for s in samples] == [("cat", 30), ("cat", 10)]


def test_the_part_for_testing_is_one(tmp_path: Path) -> None:
    parts = {"train": animals([10], [1]), "test": animals([20], [0])}
    hf.DatasetDict(parts).save_to_disk(tmp_path / "site")
    samples, _ = found(tmp_path / "site", TASK)
    assert [(s.name, s.label, s.test) for s in samples] == [
        ("site/train#1", "cat", False),
        ("site/test#1", "dog", True),
    ]


def test_a_column_that_is_missing_is_one_line(tmp_path: Path) -> None:
    animals([10], [1]).save_to_disk(tmp_path / "site")
    other = TASK.model_copy(update={"label_column": "animals"})
    with pytest.raises(DataError, match=r"no column 'animals'.*did you mean 'animal'"):
        found(tmp_path / "site", other)
    assert labels(tmp_path / "site", other, labelled=False) == [("site#1", None)]


def test_tables_texts_and_series(tmp_path: Path) -> None:
    rows = hf.Dataset.from_dict(
        {
            "u": [1.5, None, 3.0],
            "n": [1, 2, 3],
            "text": ["fine", "awful", ""],
            "label": ["ok", "worn", "ok"],
        }
    )
    rows.save_to_disk(tmp_path / "site")
    classes = ("ok", "worn")
    table = TableTask(classes=classes, columns=("u", "n"))
    x = [sample.value() for sample in found(tmp_path / "site", table)[0]]
    np.testing.assert_array_equal(x, [[1.5, 1], [np.nan, 2], [3, 3]])
    text = TextTask(classes=classes, length=6, vocabulary=64)
    samples, skipped = found(tmp_path / "site", text)
    assert [s.label for s in samples] == ["ok", "worn"]
    assert skipped == {"site#3": "text is empty"}
    series = SeriesTask(classes=classes, channels=("n",), length=2)
    named = series.model_copy(update={"label_column": "text"})
    assert labels(tmp_path / "site", named, labelled=False)[0] == ("site#1", None)


def test_a_broken_folder_is_one_line(tmp_path: Path) -> None:
    animals([10], [1]).save_to_disk(tmp_path / "site")
    next((tmp_path / "site").glob("*.arrow")).write_bytes(b"x")
    with pytest.raises(DataError, match="site cannot be read") as raised:
        found(tmp_path / "site", TASK)
    assert "\n" not in str(raised.value)


def test_images_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    animals([10, 20, 30], [1, 0, 1]).to_parquet(path, batch_size=2)
    named = TASK.model_copy(update={"classes": ("0", "1")})
    samples, _ = found(path, named)
    assert [(s.name, s.label) for s in samples] == [
        ("a.parquet#1", "1"),
        ("a.parquet#2", "0"),
        ("a.parquet#3", "1"),
    ]
    assert [s.value().mean() for s in reversed(samples)] == [30, 20, 10]


def test_images_as_plain_bytes_in_parquet(tmp_path: Path) -> None:
    file = io.BytesIO()
    picture(40).save(file, "PNG")
    rows = hf.Dataset.from_dict({"data": [file.getvalue(), b""]})
    rows.to_parquet(tmp_path / "a.parquet")
    samples, _ = found(tmp_path, TASK, labelled=False)
    assert samples[0].value().mean() == 40
    with pytest.raises(DataError, match="the cell holds no image"):
        samples[1].value()


def test_what_to_install_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    animals([10], [1]).save_to_disk(tmp_path / "site")
    monkeypatch.setattr("importlib.import_module", _missing)
    with pytest.raises(DataError, match=r"pip install 'expertfleet\[own-data\]'"):
        found(tmp_path / "site", TASK)


def _missing(name: str) -> object:
    raise ImportError(name, name=name.partition(".")[0])
