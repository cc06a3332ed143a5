"""The scale of a user's own numbers: worked out of the training samples.

A sensor says g, m/s^2 or counts, a table years and dollars: what a model sees must not
depend on it. Known sets have constants instead (``datasets``); so has a fleet whose
devices have data of their own (``common.task.scale``).
"""

from dataclasses import replace
from typing import Any

import numpy as np

from common.data.dataset import FAR, Dataset, Normaliser, channel_axis
from common.data.moments import Moments, standardising

TINY = 1e-30
"""A smaller standard deviation is near the end of what float32 can hold."""


def in_own_units(dataset: Dataset) -> Dataset:
    """Return a data set with the scale of its own training samples.

    Each channel or column of them gets mean 0 and standard deviation 1, or, if it is
    constant, 0. Samples of a large type become float32, or float64 where float32 would
    lose small changes of large numbers.
    """
    x, shape = dataset.x_train, dataset.input_shape
    moments = Moments.of_samples(x, channel_axis(x.shape[1:], shape))
    full = _full_brightness(x.dtype, moments) if len(shape) == 3 else 1.0
    mean, std = standardising(moments.divided_by(full))
    kept = x.dtype
    if not np.can_cast(kept, np.float32):
        far = (abs(moments.mean) > FAR * moments.std) | (moments.std < TINY)
        lost = (far & ~moments.constant).any()
        kept = np.dtype(np.float64 if lost else np.float32)
    return replace(
        dataset,
        x_train=x.astype(kept, copy=False),
        x_test=dataset.x_test.astype(kept, copy=False),
        normaliser=Normaliser(scale=full, mean=mean, std=std),
    )


def _full_brightness(dtype: np.dtype[Any], moments: Moments) -> float:
    """Return the number that an image file's full brightness stands for."""
    if dtype in (np.uint8, np.uint16):
        return float(np.iinfo(dtype).max)
    in_bytes = moments.least.min() >= 0 and 1 < moments.most.max() <= 255
    return 255.0 if in_bytes else 1.0
