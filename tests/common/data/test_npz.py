"""``.npz`` files: what they may say, and what is refused in one line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from common.data import inflate, load_dataset
from common.errors import DataError
from common.task.known import task_of
from tests.common.data.npz import arrays, refused


def test_a_file_of_the_users(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    mine = load_dataset("mine", str(tmp_path))
    assert (mine.name, mine.num_classes, mine.input_shape) == ("mine", 3, (1, 8, 8))
    assert mine.y_train.dtype == np.int64
    # 0, ..., 255 and 0, ..., 127: their mean, and as image files count brightness.
    x = np.r_[np.arange(256), np.arange(128)]
    assert mine.normaliser.scale == 255
    expected = (255 - x.mean()) / x.std()
    brightest = np.full((1, 8, 8), 255, np.uint8)
    np.testing.assert_allclose(mine.normalise(brightest), expected, rtol=1e-5)
    assert mine.group_train is None


def test_a_file_may_say_how_many_classes_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(num_classes=np.array(9)))
    assert load_dataset("mine", tmp_path).num_classes == 9
    assert "from 0 to 1, got 0 to 2" in refused(tmp_path, num_classes=2)
    assert "'num_classes': expected one integer" in refused(tmp_path, num_classes=1.5)
    assert "'num_classes': expected one integer" in refused(tmp_path, num_classes=0)


def test_a_file_may_say_what_its_classes_are_called(tmp_path: Path) -> None:
    names = np.array(["ok", "crack", "rust", "hole"])
    np.savez(tmp_path / "mine.npz", **arrays(class_names=names))
    mine = load_dataset("mine", tmp_path)
    assert mine.num_classes == 4
    assert task_of(mine).classes == mine.class_names == ("ok", "crack", "rust", "hole")
    assert "from 0 to 1, got 0 to 2" in refused(tmp_path, class_names=names[:2])
    said = refused(tmp_path, class_names=names, num_classes=5)
    assert said.endswith("'class_names': expected 5 names, got 4")
    for bad in (np.arange(4), np.array(["a", "", "b"]), names.reshape(2, 2)):
        said = refused(tmp_path, class_names=bad)
        assert "'class_names': expected strings of 1 to 100 letters, one for" in said
    twice = refused(tmp_path, class_names=np.array(["a", "b", "a"]))
    assert twice.endswith("expected each name once, got 'a' twice")


def test_groups(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(group_train=np.arange(6, dtype=np.uint8)))
    groups = load_dataset("a", tmp_path).group_train
    assert groups is not None and groups.tolist() == [0, 1, 2, 3, 4, 5]
    # Tracks are numbered anew in every class; uint8 labels must not wrap around.
    track = np.array([0, 0, 0, 0, 200, 1], dtype=np.uint8)
    np.savez(tmp_path / "b.npz", **arrays(track_train=track))
    groups = load_dataset("b", tmp_path).group_train
    assert groups is not None and groups.tolist() == [0, 201, 402, 0, 401, 403]
    assert "'group_train': expected shape (6,)" in refused(
        tmp_path, group_train=np.arange(5)
    )


def test_owners(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(owner_train=np.array([4, 4, 2, 2, 9, 9])))
    owners = load_dataset("a", tmp_path).owner_train
    assert owners is not None and owners.tolist() == [4, 4, 2, 2, 9, 9]
    assert "'owner_train': expected integers" in refused(
        tmp_path, owner_train=np.zeros(6)
    )


@pytest.mark.parametrize("missing", ["x_train", "y_train", "x_test", "y_test"])
def test_missing_array(tmp_path: Path, missing: str) -> None:
    changes: dict[str, Any] = {missing: None}
    assert f"has no array {missing!r}" in refused(tmp_path, "mine", **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_train": np.zeros(5, int)}, "'y_train': expected shape (6,), got (5,)"),
        ({"y_test": np.zeros((4, 1), int)}, "'y_test': expected shape (4,)"),
        ({"y_train": np.zeros(6)}, "'y_train': expected integers, got float64"),
        ({"y_train": np.full(6, -1)}, "'y_train': expected labels from 0, got -1"),
        ({"x_train": np.zeros(6)}, "'x_train': expected samples along"),
        ({"x_train": np.zeros((0, 8, 8))}, "'x_train': expected samples along"),
        (
            {"x_train": np.zeros((6, 8, 8, 7)), "x_test": np.zeros((4, 8, 8, 7))},
            "'x_train': a sample of shape (8, 8, 7)",
        ),
        ({"x_train": np.zeros((6, 8, 8), complex)}, "'x_train': expected numbers, got"),
        (
            {"x_train": np.full((6, 8, 8), np.nan), "x_test": np.zeros((4, 8, 8))},
            "'x_train': expected finite numbers, got nan in row 0",
        ),
        (
            {"x_train": np.ones((6, 2)), "x_test": np.array([[1, 2], [3, 1e300]])},
            "'y_test': expected shape (2,)",
        ),
        (
            {
                "x_train": np.ones((6, 2)),
                "x_test": np.array([[1, 2], [3, 1e300], [np.nan, 0], [0, np.inf]]),
            },
            "'x_test': expected finite numbers (NaN where one is missing), got 1e+300",
        ),
        ({"x_test": np.zeros((4, 8, 7), np.uint8)}, "'x_test': expected samples of"),
        ({"x_test": np.zeros((4, 8, 8))}, "'x_test': expected the type of x_train"),
        ({"x_train": np.array([{}] * 6)}, "'x_train': cannot be read (Object arrays"),
    ],
)
def test_bad_file(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert says in refused(tmp_path, **changes)


def test_not_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"mine\.npz is not an \.npz archive"):
        load_dataset("mine", tmp_path)
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff" * 40 + whole[100:])
    with pytest.raises(DataError, match=r"mine\.npz, array 'x_train': cannot be read"):
        load_dataset("mine", tmp_path)


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflate, "ALWAYS", 2**20)
    bomb = tmp_path / "mine.npz"
    huge = np.zeros((4000, 64, 64), np.uint8)  # 16 MB in 16 kB
    fields = arrays(x_train=huge, y_train=np.arange(4000) % 3)
    np.savez_compressed(bomb, **{**fields, "x_test": huge[:4]})
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda *_: pytest.fail("unpacked")
    )
    with pytest.raises(DataError, match=r"mine\.npz unpacks to more than 4 MiB"):
        load_dataset("mine", tmp_path)


def test_a_machine_without_room_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100))
    with pytest.raises(DataError, match="free of this machine's memory"):
        load_dataset("mine", tmp_path)


def test_a_header_that_names_any_size_is_no_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    with ZipFile(tmp_path / "mine.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = members["x_train.npy"]
    assert b"(6, 8, 8), }" in header
    huge = header.replace(b"(6, 8, 8), }" + b" " * 14, b"(600000000, 8000, 8000), }")
    assert len(huge) == len(header) and huge != header
    for wrong in (huge, header.replace(b"(6, 8, 8)", b"(9, 9, 9)")):
        with ZipFile(tmp_path / "mine.npz", "w") as archive:
            for name, data in {**members, "x_train.npy": wrong}.items():
                archive.writestr(name, data)
        with pytest.raises(DataError, match="array 'x_train'"):
            load_dataset("mine", tmp_path)
