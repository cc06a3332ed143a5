"""The registry: what a name leads to, and what is said when it leads nowhere."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import DATASETS, DataError, HashedPieces, load_dataset
from common.data import datasets as module
from common.data import digits as digits_module


def arrays(**changes: Any) -> dict[str, Any]:
    """Return the arrays of a good file: six training and four test images."""
    good = {
        "x_train": np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8),
        "x_test": np.zeros((4, 8, 8), dtype=np.uint8),
        "y_test": np.array([0, 1, 2, 2]),
    }
    return {k: v for k, v in (good | changes).items() if v is not None}


def refused(tmp_path: Path, name: str = "mine", **changes: Any) -> str:
    np.savez(tmp_path / f"{name}.npz", **arrays(**changes))
    with pytest.raises(DataError) as error:
        load_dataset(name, tmp_path)
    assert str(tmp_path / f"{name}.npz") in str(error.value)
    return str(error.value)


def test_digits() -> None:
    digits = load_dataset("digits", "")
    assert digits.input_shape == (1, 8, 8)
    assert digits.x_train.shape == (1438, 8, 8)
    assert digits.x_train.dtype == np.uint8
    assert digits.y_train.dtype == np.int64
    # 1797 digits of 174 to 183 per class, a fifth of each for the test.
    assert np.bincount(digits.y_test).tolist() == [
        *(36, 36, 35, 37, 36, 36, 36, 36, 35, 36)
    ]
    x = digits.normalise(digits.x_train)
    assert x.shape == (1438, 1, 8, 8)
    assert (x.min(), x.max()) == (0, 1)
    assert load_dataset("digits", "") is digits


def test_digits_are_those_of_scikit_learn() -> None:
    read = digits_module._bundled()
    assert read is not None
    asked = digits_module._by_scikit_learn()
    for mine, theirs in zip(read, asked, strict=True):
        assert mine.dtype == theirs.dtype
        assert np.array_equal(mine, theirs)


def test_digits_where_scikit_learn_keeps_them_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digits_module, "find_spec", lambda _: None)
    assert digits_module._bundled() is None
    again = digits_module.load_digits("digits", Path(), HashedPieces())
    assert np.array_equal(again.x_test, load_dataset("digits", "").x_test)


def test_no_heavy_import() -> None:
    code = (
        "import sys; from common.data import load_dataset; load_dataset('digits', '');"
        "bad = {'torch', 'torchvision', 'flwr', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_of_the_users(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    mine = load_dataset("mine", str(tmp_path))
    assert (mine.name, mine.num_classes, mine.input_shape) == ("mine", 3, (1, 8, 8))
    assert mine.y_train.dtype == np.int64
    # Bytes become (x / 255 - 0.5) / 0.25.
    np.testing.assert_allclose(mine.normalise(np.full((1, 8, 8), 255, np.uint8)), 2)
    assert mine.group_train is None


def test_float_vectors_are_used_as_they_are(tmp_path: Path) -> None:
    x = np.linspace(-3, 3, 12).reshape(6, 2)
    np.savez(tmp_path / "mine.npz", **arrays(x_train=x, x_test=x[:4]))
    mine = load_dataset("mine", tmp_path)
    assert mine.input_shape == (2,)
    assert mine.x_train.dtype == np.float32
    assert np.array_equal(mine.normalise(mine.x_train), x.astype(np.float32))


def test_a_file_may_say_how_many_classes_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(num_classes=np.array(9)))
    assert load_dataset("mine", tmp_path).num_classes == 9
    assert "from 0 to 1, got 0 to 2" in refused(tmp_path, num_classes=2)
    assert "'num_classes': expected one integer" in refused(tmp_path, num_classes=1.5)
    assert "'num_classes': expected one integer" in refused(tmp_path, num_classes=0)


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


def test_cached_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    first = load_dataset("mine", tmp_path)
    assert load_dataset("mine", tmp_path) is first
    np.savez(path, **arrays(y_test=np.array([0, 1, 2, 4])))
    os.utime(path, ns=(1, 1))
    assert load_dataset("mine", tmp_path).num_classes == 5


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
        ({"x_train": np.zeros((6, 8, 8, 7))}, "'x_train': a sample of shape (8, 8, 7)"),
        ({"x_train": np.zeros((6, 8, 8), int)}, "'x_train': expected type uint8"),
        ({"x_train": np.full((6, 8, 8), np.nan)}, "'x_train': expected finite"),
        ({"x_train": np.full((6, 8, 8), 1e300)}, "'x_train': expected finite"),
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


@pytest.mark.parametrize("name", ["emnist.npz", "emnist_letters.npz"])
def test_emnist_has_two_file_names(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / name, **arrays())
    emnist = load_dataset("emnist", tmp_path)
    assert (emnist.name, emnist.num_classes) == ("emnist", 26)


def test_known_names_have_known_labels_and_channels(tmp_path: Path) -> None:
    assert "'y_train': expected labels from 0 to 25" in refused(
        tmp_path, "emnist", y_train=np.full(6, 26)
    )
    assert "cifar10 is uint8 images of 3 channel(s)" in refused(tmp_path, "cifar10")
    floats = {"x_train": np.zeros((6, 8, 8)), "x_test": np.zeros((4, 8, 8))}
    assert "got float32" in refused(tmp_path, "fashion_mnist", **floats)


def test_unknown_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "wheels.npz", **arrays())
    with pytest.raises(DataError) as error:
        load_dataset("weels", tmp_path)
    assert "unknown dataset 'weels': choose from cifar10, digits" in str(error.value)
    assert "did you mean 'wheels'?" in str(error.value)
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        load_dataset("cifar_10", tmp_path / "missing")


@pytest.mark.parametrize("name", ["", "..", "../mine", "/etc/mine", "sub/mine"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    np.savez(tmp_path / "mine.npz", **arrays())
    np.savez(tmp_path / "sub" / "mine.npz", **arrays())
    with pytest.raises(DataError, match="unknown dataset"):
        load_dataset(name, tmp_path / "sub" if name == "../mine" else tmp_path)


def test_the_users_file_comes_before_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Path:
        raise AssertionError("downloads although the file is there")

    monkeypatch.setattr(module, "fetch", never)
    np.savez(tmp_path / "fashion_mnist.npz", **arrays())
    assert load_dataset("fashion_mnist", tmp_path).num_classes == 10


def test_registry() -> None:
    assert set(DATASETS) == {
        *("digits", "cifar10", "emnist", "gtsrb", "fashion_mnist"),
        *("reviews", "sent140"),
    }
