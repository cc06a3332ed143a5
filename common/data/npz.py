"""Reading ``NAME.npz``: what a file must hold, and a clear error when it does not.

Arrays of a file
----------------
x_train, x_test
    Samples: numbers of any type, in any unit, of shape (N, features), (N, height,
    width), (N, height, width, channels) or (N, channels, height, width); for a backbone
    of series, of shape (N, steps), (N, steps, channels) or (N, channels, steps). NaN is
    a missing value; an image has none.
y_train, y_test
    Integer labels from 0, shape (N,).
axes, optional
    "steps,channels" or "channels,steps": samples of two axes are windows of a series.
    Without it they are images, or, for a backbone of series, windows whose longer axis
    is the steps.
group_train, optional
    Integers, shape (N,): rows with equal numbers are never split up.
track_train, optional
    The same, numbered from anew in every class (GTSRB).
owner_train, optional
    Integers, shape (N,): whose sample it is, for partition ``natural``.
num_classes, optional
    One integer, for a file that does not show every class.
class_names, optional
    Strings, shape (K,): what the classes are called, by number.
"""

import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import (
    LONGEST_NAME,
    Dataset,
    Labels,
    Samples,
)
from common.data.inflate import check_inflated, most_bytes
from common.data.moments import blocks
from common.data.windows import arranged
from common.errors import DataError
from common.text import reason

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = (
    *("group_train", "track_train", "owner_train"),
    *("num_classes", "class_names", "axes"),
)
UNREADABLE = (
    *(ValueError, OSError, EOFError, MemoryError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError, TokenError),
)
"""What NumPy raises for a damaged archive; a header may name any size."""


def dataset_of(
    path: Path,
    raw: Mapping[str, NDArray[Any]],
    *,
    series: bool = False,
) -> Dataset:
    """Check the arrays that were read from one file, and make a data set of them.

    Its samples are not scaled; see ``units``.

    Parameters
    ----------
    path : Path
        The file, for messages.
    raw : mapping of str to ndarray
        As listed above.
    series : bool
        Whether samples of one or two axes are windows of a series.

    Raises
    ------
    DataError
        Naming the file, the array and what is expected of it.
    """
    _check_names(path, raw, REQUIRED)
    x_train, x_test = (_samples(path, name, raw) for name in ("x_train", "x_test"))
    y_train = _integers(path, "y_train", raw, len(x_train))
    y_test = _integers(path, "y_test", raw, len(x_test))
    if x_train.shape[1:] != x_test.shape[1:]:
        expected = f"samples of shape {x_train.shape[1:]} as in x_train"
        raise _bad(path, "x_test", expected)
    if x_train.dtype != x_test.dtype:
        raise _bad(path, "x_test", f"the type of x_train, {x_train.dtype}")
    names = _class_names(path, raw)
    classes = _num_classes(path, raw) or len(names) or None
    if names and len(names) != classes:
        raise _bad(path, "class_names", f"{classes} names", f"got {len(names)}")
    _check_range(path, "y_train", y_train, classes)
    _check_range(path, "y_test", y_test, classes)
    x_train, x_test, input_shape = arranged(
        path, x_train, x_test, series=series, axes=str(raw.get("axes", ""))
    )
    for name, x in (("x_train", x_train), ("x_test", x_test)):
        _check_numbers(path, name, x, gaps=len(input_shape) < 3)
    owners = None
    if "owner_train" in raw:
        owners = _integers(path, "owner_train", raw, len(y_train))
    return Dataset(
        name=path.name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        num_classes=classes or 1 + int(max(y_train.max(), y_test.max())),
        input_shape=input_shape,
        class_names=names,
        owner_train=owners,
        group_train=_groups(path, raw, y_train),
    )


def read_arrays(path: Path, _: object = None) -> dict[str, NDArray[Any]]:
    """Read one file; a reader as ``common.data.datasets`` has them."""
    return read_npz(path, REQUIRED, OPTIONAL)


def read_npz(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` file.

    Raises
    ------
    DataError
        If it is no such file, lacks one, or unpacks to more than there is room for.
    """
    try:
        with path.open("rb") as file:
            is_archive = zipfile.is_zipfile(file)
    except OSError as error:  # is_zipfile(path) would say that it is none
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if not is_archive:
        expected = f"an .npz file with {', '.join(required)}"
        raise DataError(f"{path} is not an .npz archive; expected {expected}")
    name, arrays = "(table of contents)", {}
    try:
        # allow_pickle=False: a pickled object array runs code when it is read.
        with np.load(path, allow_pickle=False) as archive:
            _check_names(path, archive.files, required)
            wanted = [n for n in (*required, *optional) if n in archive.files]
            # What zipfile unpacks of a member ends at the size it states.
            sizes = {info.filename: info.file_size for info in archive.zip.infolist()}
            total = sum(sizes.get(f"{n}.npy", sizes.get(n, 0)) for n in wanted)
            check_inflated(path, total, most_bytes(path))
            for name in wanted:
                arrays[name] = archive[name]
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(
            f"{path}, array {name!r}: cannot be read ({error}); expected numbers as "
            "written by numpy.savez"
        ) from error
    return arrays


def _check_names(path: Path, present: Collection[str], required: Sequence[str]) -> None:
    for name in required:
        if name not in present:
            raise DataError(
                f"{path} has no array {name!r} (it has "
                f"{', '.join(sorted(present)) or 'none'}); expected an .npz file with "
                f"{', '.join(required)}"
            )


def _bad(path: Path, name: str, expected: str, got: str = "") -> DataError:
    return DataError(f"{path}, array {name!r}: expected {expected}{got and f', {got}'}")


def _samples(path: Path, name: str, raw: Mapping[str, NDArray[Any]]) -> Samples:
    x = raw[name]
    if len(x.shape) < 2 or len(x) == 0:
        raise _bad(path, name, "samples along the first axis", f"got shape {x.shape}")
    if x.dtype.kind not in "biuf":
        raise _bad(path, name, "numbers", f"got {x.dtype}")
    return x


def _check_numbers(path: Path, name: str, x: Samples, *, gaps: bool) -> None:
    """Refuse infinity, what float32 cannot hold and, without ``gaps``, NaN."""
    if x.dtype.kind != "f":
        return
    start = 0
    for rows in blocks(x):
        fine = abs(rows) <= np.finfo(np.float32).max
        if gaps:
            fine |= np.isnan(rows)
        if not fine.all():
            at = tuple(int(i) for i in np.argwhere(~fine)[0])
            allowed = "finite numbers (NaN where one is missing)"
            raise _bad(
                *(path, name, allowed if gaps else "finite numbers"),
                f"got {rows[at]} in row {start + at[0]}",
            )
        start += len(rows)


def _integers(
    path: Path, name: str, raw: Mapping[str, NDArray[Any]], rows: int
) -> Labels:
    y = raw[name]
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


def _class_names(path: Path, raw: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    if "class_names" not in raw:
        return ()
    value = raw["class_names"]
    names = tuple(str(name) for name in value.ravel())
    fit = all(0 < len(name) <= LONGEST_NAME for name in names)
    if value.ndim != 1 or value.dtype.kind != "U" or not fit:
        expected = f"strings of 1 to {LONGEST_NAME} letters, one for each class"
        raise _bad(path, "class_names", expected, f"got {value.dtype} {value.shape}")
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise _bad(path, "class_names", "each name once", f"got {double!r} twice")
    return names


def _check_range(path: Path, name: str, y: Labels, classes: int | None) -> None:
    low, high = int(y.min()), int(y.max())
    if low < 0 or (classes is not None and high >= classes):
        allowed = "labels from 0" + (f" to {classes - 1}" if classes else "")
        raise _bad(path, name, allowed, f"got {low} to {high}")


def _groups(
    path: Path, raw: Mapping[str, NDArray[Any]], y_train: Labels
) -> Labels | None:
    if "group_train" in raw:
        return _integers(path, "group_train", raw, len(y_train))
    if "track_train" in raw:
        track = _integers(path, "track_train", raw, len(y_train))
        # Tracks count from 0 in every class: the pair is what names a recording.
        return y_train * (int(track.max()) + 1) + track
    return None
