"""Moments of a device's own data, and what is said of what may be wrong with it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.own import own_data
from common.own.found import Found
from common.task import Fixed, Moments, Task, parse_task
from tests.common.own.files import TABLE, TASK, Give, Reader, opened, write, write_many


def test_moments_are_those_of_the_training_rows(give: Give) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (200, 2)).astype(np.float32)
    x[3, 0] = np.nan
    data = give(parse_task(TABLE), *(("a", row) for row in x))
    mine = data.moments()
    assert mine
    train = data.x_train.astype(np.float64)
    assert mine.count.tolist() == np.isfinite(train).sum(0).tolist()
    np.testing.assert_allclose(mine.mean, np.nanmean(train, axis=0))
    np.testing.assert_allclose(mine.std, np.nanstd(train, axis=0))
    assert mine.least.tolist() == np.nanmin(train, axis=0).tolist()
    assert mine.most.tolist() == np.nanmax(train, axis=0).tolist()


def test_moments_of_images_are_divided_by_full_brightness(
    tmp_path: Path, reader: Reader
) -> None:
    write_many(tmp_path, 200)
    data = opened(tmp_path, None)
    x = data.x_train.astype(np.float64)[..., 0].reshape(1, -1) / 255
    mine, its = data.moments(), Moments.of(x)
    assert mine
    for name in ("count", "mean", "m2", "least", "most"):
        np.testing.assert_allclose(getattr(mine, name), getattr(its, name), rtol=1e-12)


def test_moments_of_series_are_per_channel(give: Give) -> None:
    task = parse_task(
        {"kind": "series", "classes": ["a", "b"], "channels": ["x", "y"], "length": 3}
    )
    data = give(task, *(("a", [[i, i, i], [1, 2, 3]]) for i in range(40)))
    mine = data.moments()
    assert mine
    rows = data.x_train.astype(np.float64)
    np.testing.assert_allclose(mine.mean, rows.mean(axis=(0, 2)))
    assert mine.count.tolist() == [3 * len(rows)] * 2


def test_texts_have_no_moments(give: Give) -> None:
    task = parse_task({"kind": "text", "classes": ["a", "b"], "length": 4})
    given = [("a", np.array([i, 2, 3, 0])) for i in range(20)]
    data = give(task, *given)
    assert data.x.dtype == np.uint16 and data.kind == "int64"
    assert data.moments() is None and data.notes == []


def note(task: dict[str, Any], x: object, give: Give) -> list[str]:
    rows = (("a", row) for row in np.asarray(x, dtype=np.float32))
    return give(parse_task(task), *rows).notes


def test_values_far_from_0_after_scaling_are_said(give: Give) -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal([700, 0], [100, 1], (60, 2))
    [far] = note(TABLE | {"scale": "none"}, raw, give)
    assert far.startswith("values far from 0 +- 1 after scaling: column 't' has 7")
    small = rng.normal([0, 0], [1e-4, 1], (60, 2))
    [near] = note(TABLE | {"scale": "none"}, small, give)
    assert near.startswith("values far from 0 +- 1 after scaling: column 't' has ")
    right = {"mean": [700.0, 0.0], "std": [100.0, 1.0]}
    assert note(TABLE | {"scale": right}, raw, give) == []
    assert note(TABLE, raw, give) == []


def test_a_constant_column_is_named(give: Give) -> None:
    x = np.ones((20, 2))
    x[:, 1] = np.arange(20)
    assert note(TABLE, x, give) == ["constant column: column 't' is 1"]
    columns = [{"name": "m", "values": ["u", "v"]}, "p"]
    one_hot = np.c_[np.ones(20), np.zeros(20), np.arange(20)]
    assert note(TABLE | {"columns": columns}, one_hot, give) == []


def test_one_row_is_no_constant_column(give: Give) -> None:
    [said] = note(TABLE, [[1, 2]], give)
    assert said == "nothing is held out: there is no local measure"


def test_bytes_that_are_no_255_are_said(tmp_path: Path, reader: Reader) -> None:
    for i in range(32):
        write(tmp_path, f"a/{i}.bin", bytes([i % 17, 16, 0, 3]))
    data = opened(tmp_path, None)
    assert data.notes == [
        "no value above 16 of 255: if 16 is full brightness, the task needs bright = "
        "16; of files with 16 bits that use 12, bright = 4095"
    ]
    sixteen = TASK.model_copy(update={"bright": 16.0})
    assert opened(tmp_path, None, sixteen).notes == []
    scaled = TASK.model_copy(
        update={"bright": 16.0, "scale": Fixed(mean=(0.5,), std=(0.25,))}
    )
    assert opened(tmp_path, None, scaled).notes == []


def test_notes_of_a_reader_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_many(tmp_path, 9)
    inner = Reader()

    def noting(path: Path, task: Task, *_: object) -> Iterator[Found]:
        for found in inner(path, task):
            assert isinstance(found, Found)
            yield replace(found, note="upside down")

    monkeypatch.setattr(own_data, "find_samples", noting)
    assert (
        "upside down: a/00000.bin, a/00003.bin, a/00006.bin"
        in opened(tmp_path, None).notes
    )


def test_copies_of_another_class_are_told(give: Give) -> None:
    data = give(parse_task(TABLE), *[("ab"[k % 2], [k % 3 // 2, 0]) for k in range(9)])
    # Rows 0 and 1 of every three are equal, and of both classes.
    assert data.contradictions == 9
    assert "9 samples have exact copies of another class" in data.notes
    data = give(parse_task(TABLE), *[("ab"[k % 2], [k % 2, 0]) for k in range(9)])
    assert data.copies == 7 and data.contradictions == 0


def test_copies_of_what_is_for_testing_are_told(tmp_path: Path, reader: Reader) -> None:
    for name in ("a/0", "test/a/0", "test/b/1", "b/2"):
        write(tmp_path, f"{name}.bin", bytes([int(name[-1]), 9, 200, 3]))
    data = opened(tmp_path, None)
    assert data.like_tests == 1
    assert (
        "1 samples are held out because samples for testing are copies of them, or of "
        "their group"
    ) in data.notes


def test_a_unit_that_leaves_nothing_of_the_spread_is_said(give: Give) -> None:
    # In 0 to 255 where the samples are 0 to 1: all are about -2.
    fixed = {**TABLE, "scale": {"mean": [127.0], "std": [64.0]}}
    data = give(
        parse_task(fixed), *[("ab"[k % 2], [k % 5 / 5, k % 7]) for k in range(30)]
    )
    [note] = [n for n in data.notes if "far from 0 +- 1" in n]
    assert "'t' has -1.98" in note and "'p'" in note


def test_a_column_without_a_value_and_one_with_what_loggers_write(give: Give) -> None:
    rows = [("ab"[k % 2], [np.nan, -999 if k % 9 == 0 else k]) for k in range(40)]
    notes = give(parse_task(TABLE), *rows).notes
    assert "no value at all: column 't'" in notes
    assert any(n.startswith("does it stand for no value?") for n in notes)
    assert any("column 'p' has -999" in n for n in notes)
