"""The registry: what a name leads to, and what is said when it leads nowhere."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import DATASETS, load_dataset
from common.data import datasets as module
from common.data import digits as digits_module
from common.errors import DataError
from tests.common.data.npz import arrays


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
    again = digits_module.read_digits()
    assert np.array_equal(again.x_test, load_dataset("digits", "").x_test)


def test_no_heavy_import() -> None:
    code = (
        "import sys; from common.data import load_dataset; load_dataset('digits', '');"
        "bad = {'torch', 'torchvision', 'flwr', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cached_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    first = load_dataset("mine", tmp_path)
    assert load_dataset("mine", tmp_path) is first
    np.savez(path, **arrays(y_test=np.array([0, 1, 2, 4])))
    os.utime(path, ns=(1, 1))
    assert load_dataset("mine", tmp_path).num_classes == 5


def test_unknown_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "wheels.npz", **arrays())
    with pytest.raises(DataError) as error:
        load_dataset("weels", tmp_path)
    assert "unknown dataset 'weels': choose from cifar10, digits" in str(error.value)
    assert "did you mean 'wheels'?" in str(error.value)
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        load_dataset("cifar_10", tmp_path / "missing")


def test_a_reader_has_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_dataset("sales.csv", tmp_path, reader="npz")
    assert "neither a file sales.csv nor sales.csv.npz in" in str(error.value)
    assert "choose from" not in str(error.value)


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
    assert load_dataset("fashion_mnist", tmp_path).num_classes == 3


def test_registry() -> None:
    assert set(DATASETS) == {
        *("digits", "cifar10", "emnist", "gtsrb", "fashion_mnist"),
        *("reviews", "sent140"),
    }


def test_a_file_of_the_same_time_and_size_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    first, stat = load_dataset("mine", tmp_path), path.stat()
    assert load_dataset("mine", tmp_path) is first
    np.savez(
        tmp_path / "other.npz", **arrays(y_train=np.array([2, 1, 0, 2, 1, 0], np.uint8))
    )
    os.replace(tmp_path / "other.npz", path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    assert load_dataset("mine", tmp_path).y_train.tolist() == [2, 1, 0, 2, 1, 0]


def test_a_file_or_folder_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(DataError, match=r"mine\.npz cannot be read: Permission"):
            load_dataset("mine", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        with pytest.raises(DataError, match="cannot be read: Permission denied"):
            load_dataset("mine", tmp_path)
