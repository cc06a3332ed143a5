"""Which samples and labels a data set has, as two hashes that fit into a message.

Names say little: two files called ``blobs.npz`` may have nothing in common. Row numbers
say less, and are what a partition's hash is made of. These hash what is in the rows, in
their order, which decides who has which of them.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from common.data.dataset import Dataset

_ROWS = 4096
"""Rows that are hashed at a time: a memory-mapped set need not be in memory."""


class Fingerprint(NamedTuple):
    """Hashes of 16 hexadecimal digits; equal on every platform.

    ``train`` is of what is partitioned: samples, labels, owners and groups. ``test`` is
    of the global test set and what a model must fit: classes, shape and scale.
    """

    train: str
    test: str


# Data sets are told apart by identity: one is read, and so hashed, once per process.
@lru_cache(maxsize=4)
def fingerprint(dataset: Dataset) -> Fingerprint:
    """Hash a data set; a second call costs nothing."""
    d = dataset
    form = (d.num_classes, d.input_shape, d.normaliser, d.vocabulary)
    return Fingerprint(
        train=_hash("train", d.x_train, d.y_train, d.owner_train, d.group_train),
        test=_hash(form, d.x_test, d.y_test),
    )


def labels_hash(labels: np.ndarray) -> str:
    """Hash the labels of a test set: 16 hexadecimal digits."""
    return _hash("labels", np.asarray(labels, dtype=np.int64))


def _hash(what: object, *arrays: np.ndarray | None) -> str:
    digest = hashlib.sha256(repr(what).encode())
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        little = array.dtype.newbyteorder("<")
        digest.update(repr((little.str, array.shape)).encode())
        for start in range(0, len(array), _ROWS):
            rows = np.ascontiguousarray(array[start : start + _ROWS], dtype=little)
            digest.update(rows.data)
    return digest.hexdigest()[:16]
