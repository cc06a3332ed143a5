"""Balance and inequality of loads: pure functions of arrays.

Nothing here knows what a load is (holders of an expert, routed samples, seconds); the
caller says which, because "the CV" alone is ambiguous (METHODS 1).
"""

import numpy as np
from numpy.typing import ArrayLike


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


def layer_variations(load: ArrayLike, num_layers: int) -> list[float]:
    """Return the coefficient of variation within each of L layers.

    Parameters
    ----------
    load : array_like, shape (L * E,)
        Loads, layer by layer.
    """
    layers = np.asarray(load, dtype=np.float64).reshape(num_layers, -1)
    return [coefficient_of_variation(layer) for layer in layers]


def gini(load: ArrayLike) -> float:
    """Return the Gini coefficient of a load vector: 0 equal, (n-1)/n one has all."""
    values = np.sort(np.asarray(load, dtype=np.float64))
    total = values.sum()
    if total <= 0:
        return 0.0
    ranks = np.arange(1, values.size + 1)
    return (
        float(2 * (ranks * values).sum() / (values.size * total))
        - (values.size + 1) / values.size
    )
