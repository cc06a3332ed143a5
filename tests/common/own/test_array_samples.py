"""Samples of NumPy files."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import DataError
from common.own import array_files
from common.task import ImageTask, TableTask, TextTask
from tests.common.own.finding import TOKENS, found, labels

TASK = TableTask(classes=("ok", "worn", "lost"), columns=("u", "v"))
X = np.array([[1, 2], [3, np.nan], [5, 6]])


def test_names_or_numbers_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"  # the name of a set that all know: here it is ours
    np.savez(path, x=X, y=np.array([2, 0, 1]), group=[7, 7, 8])
    samples, skipped = found(path, TASK)
    assert not skipped
    assert [(s.name, s.label, s.group) for s in samples] == [
        ("digits.npz#0", 2, "7"),
        ("digits.npz#1", 0, "7"),
        ("digits.npz#2", 1, "8"),
    ]
    np.testing.assert_array_equal([s.value() for s in samples], X)
    np.savez(path, x=X, y=np.array(["ok", "", "lost "]))
    samples, skipped = found(tmp_path, TASK)
    assert [s.label for s in samples] == ["ok", "lost"]
    assert skipped == {"digits.npz#1": "its label is empty"}


def test_numbers_are_names_where_all_classes_are_called_by_numbers(
    tmp_path: Path,
) -> None:
    task = TASK.model_copy(update={"classes": ("1", "2", "3")})
    np.savez(tmp_path / "a.npz", x=X, y=[1.0, 2.0, 3.0])
    assert [label for _, label in labels(tmp_path, task)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "a.npz has no array 'y'"),
        ({"data": X}, "a.npz has no array 'x' or 'x_train' (it has data)"),
        ({"x": X, "y": [0, 1, 3]}, "array 'y': 3 at index 2: expected 0 to 2, for ok,"),
        ({"x": X, "y": [0, -1, 1]}, "array 'y': -1 at index 1: expected 0 to 2"),
        ({"x": X, "y": [0, 0.5, 1]}, "array 'y': 0.5 at index 1: expected names of"),
        ({"x": X, "y": [0, 1]}, "array 'y': expected shape (3,), got (2,)"),
        ({"x": X, "y": np.eye(3)}, "array 'y': expected shape (3,), got (3, 3)"),
        ({"x": X, "y": [0, 0, 0], "group": [1]}, "array 'group': expected shape (3,)"),
        ({"x": X[:, :1], "y": [0, 0, 0]}, "array 'x': expected shape (samples, 2)"),
        ({"x": X.astype(str), "y": [0, 0, 0]}, "array 'x': expected numbers, got"),
        ({"x": X, "y": np.array(["ok"], object)}, "array 'y' holds Python objects"),
        ({"x": np.float64(1), "y": [0]}, "array 'x': expected samples along a first"),
    ],
)
def test_what_an_array_must_be_is_one_line(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(message)) as raised:
        found(tmp_path / "a.npz", TASK)
    assert "\n" not in str(raised.value)


def test_a_whole_set_has_a_part_for_testing(tmp_path: Path) -> None:
    y = np.zeros((3, 1), int)
    np.savez(tmp_path / "a.npz", x_train=X, y_train=y, x_test=X[:1], y_test=y[:1])
    samples, _ = found(tmp_path / "a.npz", TASK)
    assert [(s.name, s.test) for s in samples] == [
        ("a.npz/x_train#0", False),
        ("a.npz/x_train#1", False),
        ("a.npz/x_train#2", False),
        ("a.npz/x_test#0", True),
    ]


def test_infinity_is_no_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=[[np.inf, 1]], y=[0])
    (sample,), _ = found(tmp_path / "a.npz", TASK)
    with pytest.raises(DataError, match="infinite"):
        sample.value()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_large_arrays_stay_in_their_file(
    tmp_path: Path, save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_files, "LARGE", 1)
    monkeypatch.setattr(array_files, "LONG", 1)
    x = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)
    task = ImageTask(classes=("a", "b"), size=(5, 4))
    save(tmp_path / "a.npz", y=[0, 1], x=x)
    samples, _ = found(tmp_path / "a.npz", task)
    backwards = [s.value() for s in reversed(samples)]
    np.testing.assert_array_equal(backwards[::-1], x)
    np.testing.assert_array_equal([s.value() for s in samples], x)
    np.savez(tmp_path / "a.npz", y=[0, 1], x=np.asfortranarray(x))
    samples, _ = found(tmp_path / "a.npz", task)
    np.testing.assert_array_equal([s.value() for s in samples], x)


def test_a_file_that_is_replaced_or_cut_short_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_files, "LARGE", 1)
    monkeypatch.setattr(array_files, "LONG", 1)
    np.savez(tmp_path / "a.npz", x=X, y=[0, 1, 2])
    samples, _ = found(tmp_path / "a.npz", TASK)
    np.savez(tmp_path / "b.npz", x=-X, y=[0, 1, 2])
    (tmp_path / "b.npz").replace(tmp_path / "a.npz")
    np.testing.assert_array_equal(samples[0].value(), X[0])
    many = np.ones((20_000, 2))  # more than is read ahead
    np.savez(tmp_path / "a.npz", x=many, y=np.zeros(len(many), int))
    samples, _ = found(tmp_path / "a.npz", TASK)
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"has become shorter|cannot be read"):
        samples[-1].value()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz is no \.npz file, or it is broken"):
        found(tmp_path / "a.npz", TASK)


def test_a_packed_array_may_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.data.inflate.ALWAYS", 1000)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((10**6, 2)), y=np.zeros(10**6))
    with pytest.raises(DataError, match="unpacks to more than"):
        found(tmp_path / "a.npz", TASK)


def test_arrays_in_files_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", X)
        np.save(tmp_path / folder / "y.npy", [0, 1, 2])
    np.save(tmp_path / "a" / "weights.npy", X)
    samples, skipped = found(tmp_path, TASK)
    assert [s.name for s in samples] == [
        f"{f}/x.npy#{k}" for f in "ab" for k in range(3)
    ]
    assert [*skipped] == ["a/weights.npy"]
    alone = [name for name, _ in labels(tmp_path / "a" / "x.npy", TASK)]
    assert alone == ["x.npy#0", "x.npy#1", "x.npy#2"]
    (tmp_path / "a" / "y.npy").unlink()
    assert len(labels(tmp_path / "a" / "x.npy", TASK, labelled=False)) == 3


def test_texts_are_words_or_ids(tmp_path: Path) -> None:
    task = TextTask(classes=("good", "bad"), length=6, vocabulary=64)
    np.savez(tmp_path / "words.npz", x=np.array(["fine", "awful"]), y=[0, 1])
    np.savez(tmp_path / "ids.npz", x=TOKENS.encode(["fine", "awful"]), y=[0, 1])
    (a, b), (c, d) = (found(tmp_path / f"{n}.npz", task)[0] for n in ("words", "ids"))
    np.testing.assert_array_equal([a.value(), b.value()], [c.value(), d.value()])
    np.savez(tmp_path / "ids.npz", x=np.full((1, 6), 64), y=[0])
    (sample,), _ = found(tmp_path / "ids.npz", task)
    with pytest.raises(DataError, match="token ids from 64 to 64: expected 0 to 63"):
        sample.value()


def test_a_file_may_say_what_it_calls_its_classes_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=X, y=[0, 1, 1], class_names=np.array(["lost", "ok"]))
    assert [label for _, label in labels(path, TASK)] == ["lost", "ok", "ok"]
    np.savez(path, x=X, y=[0, 2, 1], class_names=np.array([b"lost", b"ok"]))
    with pytest.raises(DataError, match="2 at index 1: expected 0 to 1, for lost, ok"):
        found(path, TASK)
    np.savez(path, x=X, y=[0, 1, 1], class_names=[3, 4])
    with pytest.raises(DataError, match=r"'class_names': expected names of shape"):
        found(path, TASK)


def test_images_of_another_size_are_noted(tmp_path: Path) -> None:
    task = ImageTask(classes=("a", "b"), size=(4, 6), channels=1)
    shapes = {"same": (2, 4, 6), "first": (2, 1, 4, 6), "other": (2, 8, 8)}
    for name, shape in shapes.items():
        np.savez(tmp_path / f"{name}.npz", x=np.zeros(shape, np.uint8), y=[0, 1])
    notes = {n: found(tmp_path / f"{n}.npz", task)[0][0].note for n in shapes}
    assert notes == {
        "same": "",
        "first": "",
        "other": "images of shape (8, 8) are brought to 4 x 6",
    }


def test_numbers_too_fine_for_32_bits_are_noted(tmp_path: Path) -> None:
    times = 1_700_000_000_000 + np.arange(8)
    np.savez(tmp_path / "a.npz", x=np.stack([np.arange(8), times], 1), y=[0] * 8)
    samples, _ = found(tmp_path / "a.npz", TASK)
    assert {s.note for s in samples} == {
        "v changes by too little for 32 bits: take a constant away from it"
    }
