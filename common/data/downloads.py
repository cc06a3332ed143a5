"""torchvision's downloaders, turned into ``<data-dir>/NAME.npz``.

Only here is torchvision imported, and only when a file is missing. The result is kept
as one .npz, so that the next process neither downloads nor decodes 39 000 PPM images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.files import atomic_write


def fetch(name: str, directory: Path) -> Path:
    """Download a data set and return the path of its ``NAME.npz``.

    Raises
    ------
    DataError
        If torchvision is missing, the download fails or the directory is not
        writable; the message says how to provide the file by hand.
    """
    path = directory / f"{name}.npz"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory / f".{name}.lock"):
            if not path.is_file():
                arrays = DOWNLOADS[name](directory)
                # All of the file or nothing: a reader never meets half of it.
                with atomic_write(path, 0o644) as file:
                    np.savez(file, **arrays)  # type: ignore[arg-type] # allow_pickle
    except (ImportError, OSError, RuntimeError, EOFError, BadZipFile) as error:
        raise DataError(
            f"dataset {name!r} is not in {directory} and could not be downloaded "
            f"({error}); put {path.name} with arrays x_train, y_train, x_test, y_test "
            "there, or set data-dir to the directory that has it"
        ) from error
    return path


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process download while the others of this machine wait for its file."""
    try:
        import fcntl
    except ImportError:  # not POSIX: no lock, as torchvision itself
        yield
        return
    with lock.open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _images(name: str, directory: Path, **options: str) -> dict[str, NDArray[Any]]:
    from torchvision import datasets

    arrays: dict[str, NDArray[Any]] = {}
    for side in ("train", "test"):
        part = getattr(datasets, name)(
            str(directory), train=side == "train", download=True, **options
        )
        arrays[f"x_{side}"] = np.asarray(part.data, dtype=np.uint8)
        arrays[f"y_{side}"] = np.asarray(part.targets, dtype=np.int64)
    return arrays


def _emnist(directory: Path) -> dict[str, NDArray[Any]]:
    arrays = _images("EMNIST", directory, split="letters")
    for side in ("train", "test"):
        # EMNIST stores its images transposed and counts the letters from 1.
        arrays[f"x_{side}"] = arrays[f"x_{side}"].transpose(0, 2, 1)
        arrays[f"y_{side}"] -= 1
    return arrays


def _gtsrb(directory: Path) -> dict[str, NDArray[Any]]:
    from PIL.Image import Resampling
    from torchvision import datasets

    arrays: dict[str, NDArray[Any]] = {}
    for side in ("train", "test"):
        part = datasets.GTSRB(str(directory), split=side, download=True)
        images = np.empty((len(part), 32, 32, 3), dtype=np.uint8)
        labels = np.empty(len(part), dtype=np.int64)
        for i in range(len(part)):
            image, labels[i] = part[i]
            images[i] = image.resize((32, 32), Resampling.BILINEAR)
        arrays[f"x_{side}"], arrays[f"y_{side}"] = images, labels
        if side == "train":
            # Training files are TRACK_FRAME.ppm, tracks numbered within a class.
            tracks = [int(Path(file).stem.split("_")[0]) for file, _ in part._samples]
            arrays["track_train"] = np.array(tracks, dtype=np.int64)
    return arrays


DOWNLOADS: dict[str, Callable[[Path], dict[str, NDArray[Any]]]] = {
    "cifar10": partial(_images, "CIFAR10"),
    "emnist": _emnist,
    "fashion_mnist": partial(_images, "FashionMNIST"),
    "gtsrb": _gtsrb,
}
