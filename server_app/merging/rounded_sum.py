"""The compiled loop of large merges: one pass over a reply, where numpy makes six.

It is memory that a merge waits for. Converting, scaling, rounding, summing and looking
for the largest value are passes over the vector in numpy; here a value is read once and
its sum written once. What the sums mean, and how adding a constant rounds, is told in
:mod:`server_app.merging.exact_sums`.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_MAGNITUDE = np.int32(0x7FFFFFFF)


@njit()
def add_rounded(
    total: NDArray[np.int64], vector: NDArray[np.float32], scale: float, rounder: float
) -> np.int32:
    """Add the bits of every ``scale * vector + rounder`` to the sums, in place.

    Parameters
    ----------
    total : ndarray of int64, shape (n,)
    vector : ndarray of float32, shape (n,)
        Contiguous.
    scale, rounder : float

    Returns
    -------
    int
        The bits of the largest magnitude in ``vector``, as float32; of NaN if there is
        one.
    """
    bits, largest = vector.view(np.int32), np.int32(0)
    for i in range(vector.size):
        rounded = np.float64(np.float64(vector[i]) * scale + rounder)
        total[i] += rounded.view(np.int64)
        # Magnitudes are ordered as their bits are, with NaN above infinity.
        largest = max(largest, bits[i] & _MAGNITUDE)
    return largest


@njit()
def take_rounded(
    total: NDArray[np.int64], vector: NDArray[np.float32], scale: float, rounder: float
) -> None:
    """Undo :func:`add_rounded` of the same values to the bit, whatever they were."""
    for i in range(vector.size):
        rounded = np.float64(np.float64(vector[i]) * scale + rounder)
        total[i] -= rounded.view(np.int64)
