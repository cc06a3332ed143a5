"""Reading ``NAME.npz``: what a file must hold, and a clear error when it does not.

Arrays of a file
----------------
x_train, x_test
    Samples, uint8 (0 to 255) or float (used as they are), of shape (N, features),
    (N, height, width), (N, height, width, channels) or (N, channels, height, width).
y_train, y_test
    Integer labels from 0, shape (N,).
group_train, optional
    Integers, shape (N,): rows with equal numbers are never split up.
track_train, optional
    The same, numbered from anew in every class (GTSRB).
owner_train, optional
    Integers, shape (N,): whose sample it is, for partition ``natural``.
num_classes, optional
    One integer, for a file that does not show every class.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import Labels, Samples, input_shape_of
from common.data.errors import DataError

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("group_train", "track_train", "owner_train", "num_classes")


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """The checked arrays of one file; samples uint8 or float32, labels int64."""

    x_train: Samples
    y_train: Labels
    x_test: Samples
    y_test: Labels
    num_classes: int
    group_train: Labels | None
    owner_train: Labels | None


def read_npz(path: Path, *, num_classes: int | None = None) -> Arrays:
    """Read and check one file.

    Parameters
    ----------
    path : Path
        The file.
    num_classes : int, optional
        Classes the data set is known to have. Otherwise the file's ``num_classes``,
        otherwise the largest label plus one.

    Raises
    ------
    DataError
        Naming the file, the array and what is expected of it.
    """
    raw = _read_arrays(path)
    checked: dict[str, NDArray[Any]] = {}
    for side in ("train", "test"):
        x = _samples(path, f"x_{side}", raw[f"x_{side}"])
        checked[f"x_{side}"] = x
        checked[f"y_{side}"] = _integers(path, f"y_{side}", raw[f"y_{side}"], len(x))
    if (stored := checked["x_train"].shape[1:]) != checked["x_test"].shape[1:]:
        raise _bad(path, "x_test", f"samples of shape {stored} as in x_train")
    if (dtype := checked["x_train"].dtype) != checked["x_test"].dtype:
        raise _bad(path, "x_test", f"the type of x_train, {dtype}")
    classes = num_classes or _num_classes(path, raw)
    for name in ("y_train", "y_test"):
        _check_range(path, name, checked[name], classes)
    return Arrays(
        x_train=checked["x_train"],
        y_train=checked["y_train"],
        x_test=checked["x_test"],
        y_test=checked["y_test"],
        num_classes=classes
        or 1 + int(max(checked["y_train"].max(), checked["y_test"].max())),
        group_train=_groups(path, raw, checked["y_train"]),
        owner_train=_owners(path, raw, len(checked["y_train"])),
    )


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    expected = f"an .npz file with the arrays {', '.join(REQUIRED)}"
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz archive; expected {expected}")
    name = "(table of contents)"
    try:
        # allow_pickle=False: a pickled object array runs code when it is read.
        with np.load(path, allow_pickle=False) as archive:
            present = archive.files
            missing = [key for key in REQUIRED if key not in present]
            if missing:
                raise DataError(
                    f"{path} has no array {missing[0]!r} (it has "
                    f"{', '.join(sorted(present)) or 'none'}); expected {expected}"
                )
            arrays = {}
            for name in (*REQUIRED, *OPTIONAL):
                if name in present:
                    arrays[name] = archive[name]
            return arrays
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}, array {name!r}: cannot be read ({error}); expected numbers as "
            "written by numpy.savez"
        ) from error


def _bad(path: Path, name: str, expected: str, got: str = "") -> DataError:
    return DataError(f"{path}, array {name!r}: expected {expected}{got and f', {got}'}")


def _samples(path: Path, name: str, x: NDArray[Any]) -> Samples:
    if len(x.shape) < 2 or len(x) == 0:
        raise _bad(path, name, "samples along the first axis", f"got shape {x.shape}")
    try:
        input_shape_of(x.shape[1:])
    except DataError as error:
        raise DataError(f"{path}, array {name!r}: {error}") from None
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise _bad(path, name, "type uint8 (0 to 255) or float", f"got {x.dtype}")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise _bad(path, name, "finite numbers", "got NaN or infinity")
    return x


def _integers(path: Path, name: str, y: NDArray[Any], rows: int) -> Labels:
    if y.shape != (rows,):
        raise _bad(path, name, f"shape ({rows},)", f"got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise _bad(path, name, "integers", f"got {y.dtype}")
    return y.astype(np.int64)


def _num_classes(path: Path, raw: Mapping[str, NDArray[Any]]) -> int | None:
    if "num_classes" not in raw:
        return None
    value = raw["num_classes"]
    if value.size != 1 or not np.issubdtype(value.dtype, np.integer) or value < 1:
        raise _bad(path, "num_classes", "one integer of at least 1")
    return int(value.reshape(()))


def _check_range(path: Path, name: str, y: Labels, classes: int | None) -> None:
    low, high = int(y.min()), int(y.max())
    if low < 0 or (classes is not None and high >= classes):
        allowed = "labels from 0" + (f" to {classes - 1}" if classes else "")
        raise _bad(path, name, allowed, f"got {low} to {high}")


def _groups(
    path: Path, raw: Mapping[str, NDArray[Any]], y_train: Labels
) -> Labels | None:
    if "group_train" in raw:
        return _integers(path, "group_train", raw["group_train"], len(y_train))
    if "track_train" in raw:
        track = _integers(path, "track_train", raw["track_train"], len(y_train))
        # Tracks count from 0 in every class: the pair is what names a recording.
        return y_train * (int(track.max()) + 1) + track
    return None


def _owners(path: Path, raw: Mapping[str, NDArray[Any]], rows: int) -> Labels | None:
    if "owner_train" not in raw:
        return None
    return _integers(path, "owner_train", raw["owner_train"], rows)
