"""Downloads, with torchvision's classes fed from small local files or replaced."""

import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from numpy.typing import NDArray

from common.data import load_dataset
from common.errors import DataError


@pytest.fixture(autouse=True)
def torchvision() -> None:
    """Import it when it is needed: that takes seconds."""
    pytest.importorskip("torchvision")


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write MNIST's own format: magic number, dimensions, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def images(rows: int) -> NDArray[np.uint8]:
    x = np.arange(rows * 28 * 28) % 251
    return x.astype(np.uint8).reshape(rows, 28, 28)


def test_emnist_is_turned_upright_and_counted_from_zero(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    for side, rows in (("train", 4), ("test", 3)):
        write_idx(raw / f"emnist-letters-{side}-images-idx3-ubyte", images(rows))
        labels = np.array([1, 26, 2, 3][:rows], dtype=np.uint8)
        write_idx(raw / f"emnist-letters-{side}-labels-idx1-ubyte", labels)
    emnist = load_dataset("emnist", tmp_path)
    assert emnist.y_train.tolist() == [0, 25, 1, 2]
    assert np.array_equal(emnist.x_test, images(3).transpose(0, 2, 1))
    assert emnist.input_shape == (1, 28, 28)


def test_fashion_mnist_is_kept_as_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    for stem, rows in (("train", 5), ("t10k", 2)):
        write_idx(raw / f"{stem}-images-idx3-ubyte", images(rows))
        write_idx(raw / f"{stem}-labels-idx1-ubyte", np.arange(rows, dtype=np.uint8))
    fashion = load_dataset("fashion_mnist", tmp_path)
    assert np.array_equal(fashion.x_train, images(5))
    assert (tmp_path / "fashion_mnist.npz").is_file()
    assert not list(tmp_path.glob("*.part"))
    # The next process reads the file: torchvision is not asked again.
    monkeypatch.delattr("torchvision.datasets.FashionMNIST")
    assert load_dataset("fashion_mnist", tmp_path) is fashion


def test_gtsrb_is_resized_and_knows_its_tracks(tmp_path: Path) -> None:
    from PIL import Image

    root = tmp_path / "gtsrb" / "GTSRB"
    rows = ["Filename;ClassId"]
    for k in range(43):
        folder = root / "Training" / f"{k:05d}"
        folder.mkdir(parents=True)
        for name in ("00000_00000", "00000_00001", "00001_00000"):
            Image.new("RGB", (40, 50), (k, 0, 255)).save(folder / f"{name}.ppm")
    test = root / "Final_Test" / "Images"
    test.mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (20, 20), (9, 9, 9)).save(test / f"{i:05d}.ppm")
        rows.append(f"{i:05d}.ppm;{40 + i}")
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text("\n".join(rows))

    gtsrb = load_dataset("gtsrb", tmp_path)
    assert gtsrb.x_train.shape == (129, 32, 32, 3)
    assert gtsrb.x_train[3, 16, 16].tolist() == [1, 0, 255]
    assert gtsrb.y_test.tolist() == [40, 41]
    assert gtsrb.group_train is not None
    assert gtsrb.group_train[:6].tolist() == [0, 0, 1, 2, 2, 3]


class TinyCIFAR10:
    def __init__(self, root: str, train: bool, download: bool) -> None:
        assert download and Path(root).is_dir()
        rows = 6 if train else 4
        self.data = np.full((rows, 32, 32, 3), rows, dtype=np.uint8)
        self.targets = list(range(rows))


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.CIFAR10", TinyCIFAR10)
    cifar10 = load_dataset("cifar10", tmp_path / "made" / "for-you")
    assert cifar10.x_train.shape == (6, 32, 32, 3)
    assert cifar10.y_test.tolist() == [0, 1, 2, 3]
    assert cifar10.input_shape == (3, 32, 32)


@pytest.mark.parametrize(
    "error", [URLError("no route"), RuntimeError("no mirror"), ImportError("no wheel")]
)
def test_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fail)
    with pytest.raises(DataError) as caught:
        load_dataset("cifar10", tmp_path)
    message = str(caught.value)
    assert "'cifar10'" in message and str(tmp_path) in message and "no " in message
    assert "put cifar10.npz with arrays x_train, y_train, x_test, y_test" in message
    assert not list(tmp_path.glob("*.npz"))


def test_a_data_dir_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be downloaded"):
        load_dataset("cifar10", tmp_path / "file")


def test_a_broken_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", TinyCIFAR10)
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match="no space left"):
        load_dataset("cifar10", tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.suffix in (".npz", ".part")]
