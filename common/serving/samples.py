"""What a user wants answered, batch by batch: texts, arrays, and what devices read.

An ``.npz`` or ``.npy`` file holds samples as numbers, which may be of another scale
than the model's; all else is read, and brought to the task's form, by the devices' own
readers (``common.own.reading``). What cannot be used is named, the rest is answered.
"""

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data import HashedPieces
from common.data.npz import UNREADABLE, read_npz
from common.errors import DataError
from common.inputs import InputError, prepare, scaled, unusable
from common.own.found import Found, Skipped
from common.own.reading import find_samples
from common.serving.servable import BATCH, Servable
from common.task import ImageTask, Task, TextTask
from common.text import one_line, reason

BATCH_BYTES = 2**23
"""Most bytes of a batch as it is stored; a larger sample is a batch of its own."""

CALIBRATION = 1024
"""Samples that ranges of int8 are taken from, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Some samples.

    Attributes
    ----------
    names : list of str
        Paths, rows or texts.
    x : ndarray, shape (B, *stored)
        As stored, not yet scaled.
    labels : list of (str, int or None)
        The word or number for the class where it is known.
    brought : bool
        Whether a reader has brought them to the task's scale, as it does with images;
        else they are in whatever numbers the file has.
    """

    names: list[str]
    x: NDArray[Any]
    labels: list[str | int | None]
    brought: bool = False

    def prepared(self, task: Task) -> NDArray[Any]:
        """Return them as the model takes them.

        Raises
        ------
        InputError
            If they do not fit, or cannot be of the task's scale.
        """
        # A dark photo of 0 to 255 is no mistake, whatever it is in the task's numbers.
        return (scaled if self.brought else prepare)(task, self.x)


def read_samples(path: Path, servable: Servable) -> Iterator[Batch | Skipped]:
    """Yield the samples of a file or folder, and what there cannot be used.

    Parameters
    ----------
    path : Path
        An ``.npz`` file with an array ``x`` (and labels ``y``), an ``.npy`` file, or
        what a device reads.
    servable : Servable
        The model that is to answer.

    Raises
    ------
    InputError
        If nothing can be read of it: one line that names it.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if _is_array(path):
        yield from _of_arrays(path, servable)
    else:
        yield from _batches(_found(path, servable), servable.task)


def read_texts(texts: Iterable[tuple[str, str]], servable: Servable) -> Iterator[Batch]:
    """Yield texts, given with their names, as batches of token ids."""
    texts = iter(texts)
    while some := list(islice(texts, BATCH)):
        x = servable.encode([text for _, text in some])
        yield Batch(names=[name for name, _ in some], x=x, labels=[None] * len(some))


def calibration_samples(path: Path, servable: Servable) -> NDArray[Any]:
    """Return up to ``CALIBRATION`` samples of a file or folder, taken by chance.

    Raises
    ------
    InputError
        If there is none that can be used, or they cannot be of the task's scale.
    """
    if _is_array(path):
        x = _joined(read_samples(path, servable), servable.task, path)
        order = np.random.default_rng(0).permutation(len(x))[:CALIBRATION]
        return x[np.sort(order)]
    if not path.exists():
        raise InputError(f"{path} does not exist")
    # Files are in the order of their classes, and none has been decoded yet.
    found = [f for f in _found(path, servable) if isinstance(f, Found)]
    order = np.random.default_rng(0).permutation(len(found))[:CALIBRATION]
    chosen = (found[row] for row in np.sort(order))
    return _joined(_batches(chosen, servable.task), servable.task, path)


def _is_array(path: Path) -> bool:
    """Whether a file is samples as an array; else it is read as devices read theirs."""
    ending = path.suffix.lower()
    if not path.is_file() or ending not in (".npz", ".npy"):
        return False
    if ending == ".npy" or not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return "x.npy" in archive.namelist()


def _joined(parts: Iterable[Batch | Skipped], task: Task, path: Path) -> NDArray[Any]:
    batches = [part for part in parts if isinstance(part, Batch)]
    if not batches:
        raise InputError(f"{path} has no sample that can be used")
    for batch in batches:
        batch.prepared(task)  # for its checks
    return np.concatenate([batch.x for batch in batches])


def _found(path: Path, servable: Servable) -> Iterator[Found | Skipped]:
    task = servable.task
    text = isinstance(task, TextTask)
    tokeniser = servable.tokeniser if text else HashedPieces()  # not asked
    try:
        yield from find_samples(path, task, tokeniser, labelled=False)
    except DataError as error:
        raise InputError(str(error)) from None


def _batches(
    samples: Iterable[Found | Skipped], task: Task
) -> Iterator[Batch | Skipped]:
    """Decode samples and put those of equal shape together."""
    names: list[str] = []
    values: list[NDArray[Any]] = []
    labels: list[str | int | None] = []

    def batch() -> Iterator[Batch]:
        if names:
            x = np.stack(values)
            brought = isinstance(task, ImageTask)
            yield Batch(names=[*names], x=x, labels=[*labels], brought=brought)
        for each in (names, values, labels):
            each.clear()

    for sample in samples:
        if isinstance(sample, Skipped):
            yield sample
            continue
        try:
            value = sample.value()
        except (DataError, OSError) as error:
            told = str(error) if isinstance(error, DataError) else reason(error)
            yield Skipped(sample.name, told)
            continue
        if unusable(task, value[np.newaxis]).any():
            yield Skipped(sample.name, "has NaN or infinity")
            continue
        names.append(sample.name)
        values.append(value)
        labels.append(sample.label)
        if len(names) == BATCH or len(names) * value.nbytes > BATCH_BYTES:
            yield from batch()
    yield from batch()


def _of_arrays(path: Path, servable: Servable) -> Iterator[Batch | Skipped]:
    x, y = _read_arrays(path)
    if x.ndim == 0:
        raise InputError(f"{path}: x has shape (): expected samples along a first axis")
    if y is not None and len(y) != len(x):
        raise InputError(f"{path}: x has {len(x)} samples and y has {len(y)} labels")
    each = max(1, x[:1].nbytes)
    step = max(1, min(BATCH, BATCH_BYTES // each))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        if part.dtype.kind == "U":
            part = servable.encode(part.tolist())
        bad = unusable(servable.task, part)
        rows = np.arange(start, start + len(part))
        for row in rows[bad]:
            yield Skipped(str(row), "has NaN or infinity")
        if not bad.all():
            labels = None if y is None else y[rows[~bad]].tolist()
            yield Batch(
                names=[str(row) for row in rows[~bad]],
                x=part[~bad],
                labels=labels or [None] * int((~bad).sum()),
            )


def _read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        x = read_npz(path, ["x"])["x"]
    except DataError as error:
        raise InputError(str(error)) from None
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from None
    try:
        y = read_npz(path, ["y"])["y"]
    except DataError:  # it need not be there, nor be labels
        return x, None
    return x, y if y.ndim == 1 and y.dtype.kind in "iuU" else None


def named_texts(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield texts of the command line with what they are called: by their beginning.

    Raises
    ------
    InputError
        If one is empty.
    """
    for text in texts:
        if not text.strip():
            raise InputError("a text is empty: there is nothing to look at")
        yield one_line(text, 40), text
