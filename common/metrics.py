"""Balance of loads, and means over clients: pure functions of arrays.

Nothing here knows what a load is (holders of an expert, routed samples, seconds); the
caller says which, because "the CV" alone is ambiguous (docs/methods.md, 1). What a
model answers class by class is in ``common.class_counts``.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit


def coefficient_of_variation(load: ArrayLike) -> float:
    """Return std / mean of a load vector, 0 for an all-zero load.

    Parameters
    ----------
    load : array_like, shape (E,)
        Non-negative loads, one per expert.
    """
    values = np.asarray(load, dtype=np.float64)
    mean = values.mean()
    return float(values.std() / mean) if mean > 0 else 0.0


def worst_tenth(values: Sequence[float]) -> float:
    """Return the mean of the lowest tenth of the values, at least one of them.

    NaN where there is none.
    """
    count = max(1, len(values) // 10)
    return float(np.mean(sorted(values)[:count])) if values else float("nan")


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float | None:
    """Return the mean of values by their weights; None where nothing has weight.

    Parameters
    ----------
    values, weights : sequence of float
        Equally long; weights are not negative.
    """
    total = sum(weights)
    pairs = zip(values, weights, strict=True)
    return sum(v * w for v, w in pairs) / total if total > 0 else None


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half the width of its 95 % interval, by Student's t.

    Parameters
    ----------
    values : sequence of float
        At least one; of a single value the width is None.
    """
    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return mean, None
    error = float(np.std(values, ddof=1)) / count**0.5
    return mean, float(stdtrit(count - 1, 0.975)) * error
