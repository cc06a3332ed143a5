"""The compiled loop of large merges: one pass over a reply, where numpy makes seven.

It is memory that a merge waits for. Converting, scaling, rounding, summing and looking
for the largest value are each a pass over the vector in numpy; here a value is read
once and its sum written once. What the sums mean is told in
:mod:`server_app.aggregation`.

Above 2**52, the spacing of float64 is 1: adding 1.5 * 2**52 rounds |x| < 2**51 to the
nearest integer, ties to even as rint does, and leaves it in the low bits. Summing the
bits as they are needs no conversion, for which many processors have no vector
instruction; what the constant adds up to is taken off at the end, modulo 2**64.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

ROUNDER = 1.5 * 2.0**52
LIMIT = 2.0**51
"""Values are rounded rightly below this."""

_MAGNITUDE = np.int32(0x7FFFFFFF)


@njit()
def add_rounded(
    total: NDArray[np.int64], vector: NDArray[np.float32], scale: float
) -> np.int32:
    """Add every ``scale * vector``, rounded, and ROUNDER's bits to the sums in place.

    Parameters
    ----------
    total : ndarray of int64, shape (n,)
    vector : ndarray of float32, shape (n,)
        Contiguous.
    scale : float

    Returns
    -------
    int
        The bits of the largest magnitude in ``vector``, as float32. The sums are right
        if ``scale`` times it is below LIMIT; NaN never is.
    """
    bits, largest = vector.view(np.int32), np.int32(0)
    for i in range(vector.size):
        rounded = np.float64(np.float64(vector[i]) * scale + ROUNDER)
        total[i] += rounded.view(np.int64)
        # Magnitudes are ordered as their bits are, with NaN above infinity.
        largest = max(largest, bits[i] & _MAGNITUDE)
    return largest


@njit()
def take_rounded(
    total: NDArray[np.int64], vector: NDArray[np.float32], scale: float
) -> None:
    """Undo :func:`add_rounded` of the same values to the bit, whatever they were."""
    for i in range(vector.size):
        rounded = np.float64(np.float64(vector[i]) * scale + ROUNDER)
        total[i] -= rounded.view(np.int64)
