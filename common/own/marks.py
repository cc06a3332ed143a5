"""Marks of a test set: hashes that tell whether two are one, whatever files have them.

A device with data of its own may have the server's test set beside them, and is
measured on it then. Samples are hashed as they are stored.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.data import Dataset, HashedPieces, labels_hash
from common.errors import DataError
from common.own.array_samples import array_samples
from common.own.found import Found
from common.own.held_out import Hashes, content_hash
from common.task import Task


class Marks(NamedTuple):
    """Of samples alone, and of them with their classes; "" where there is no sample.

    16 hexadecimal digits each; the order of the samples counts.
    """

    samples: str = ""
    whole: str = ""


NO_MARKS = Marks()


def marks_of(content: Hashes, y: NDArray[np.int64]) -> Marks:
    """Return the marks of samples that are kept on a device.

    Parameters
    ----------
    content : ndarray of uint64, shape (n,)
        Of each as it is stored (``held_out``).
    y : ndarray of int64, shape (n,)
        Numbers of their classes.
    """
    if not len(content):
        return NO_MARKS
    both = np.stack([content.view(np.int64), y])
    return Marks(samples=labels_hash(both[0]), whole=labels_hash(both))


@lru_cache(maxsize=4)
def marks_of_set(dataset: Dataset, task: Task) -> Marks:
    """Return what a device with this test set beside its samples would state.

    Parameters
    ----------
    task : Task
        Of the data set.
    """
    arrays = {"x": dataset.x_test, "y": dataset.y_test}
    words = HashedPieces(length=1, vocabulary=3)  # texts of a set are token ids
    try:
        found = array_samples("test set", arrays, (), task, words, labelled=True)
        content = [content_hash(s.value()) for s in found if isinstance(s, Found)]
    except DataError:  # no device could read it either
        return NO_MARKS
    if len(content) != len(dataset.y_test):
        return NO_MARKS
    return marks_of(np.array(content, np.uint64), dataset.y_test)
