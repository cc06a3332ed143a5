"""The Gaussian mechanism on a grid: vectors cut to norm C, and noise for their sum.

All that one contributor adds is one vector, whatever parts it is of. Two sums of which
one lacks a contributor differ by at most C, and not only in real numbers: vectors are
cut off towards zero onto a grid, by a factor from a norm that is rounded up, and summed
as integers. The noise is a Gaussian of float64, rounded to the same grid. To round a
sum of an integer and a Gaussian is to add a rounded Gaussian: it is the Gaussian
mechanism and something done to its result. Every integer within reach has its share of
the noise, so there are no values that give away what was added (Mironov, CCS 2012).
What is not proven is that the sampler's float64 is a Gaussian to the last bit.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from common.grid import GRID
from common.parts import Vector

Units = NDArray[np.float64]
"""Integers, in units of 1 / GRID."""
RandomBytes = Callable[[int], bytes]
"""Returns so many random bytes."""

MOST_NOISE = 2.0**17
"""z C up to which every noise is below 2**53 units, where float64 has all integers."""


def joint_norm(vectors: Mapping[str, Vector]) -> float:
    """Return no less than the L2 norm of several vectors as one; inf or NaN as it is.

    The sum of d squares in float64, in whatever order, is wrong by less than d / 2**52
    of itself.
    """
    size = sum(vector.size for vector in vectors.values())
    squares = sum(
        float(np.square(vector, dtype=np.float64).sum()) for vector in vectors.values()
    )
    return math.sqrt(squares) * (1 + (size + 8) * 2.0**-52)


def clipped_units(
    reply: Mapping[str, Vector], clip: float
) -> tuple[float, dict[str, Units]]:
    """Return the norm of a contribution, and it itself as integers of norm C at most.

    Parameters
    ----------
    reply : mapping of str to ndarray of float32
        Finite values.
    clip : float
        C.

    Returns
    -------
    norm : float
        No less than that of ``reply``.
    units : dict of str to ndarray of float64
        Integers; the root of their squares' sum over all parts is at most C * GRID,
        exactly.
    """
    norm = joint_norm(reply)
    if not math.isfinite(norm):
        raise ValueError("a contribution of values that are not finite")
    # Short by more than the rounding of quotient and product can add.
    factor = 1.0 if norm <= clip else clip / norm * (1 - 2.0**-50)
    units = {}
    for part, vector in reply.items():
        scaled = vector.astype(np.float64)
        scaled *= factor * GRID
        units[part] = np.trunc(scaled, out=scaled)
    return norm, units


def noise_units(size: int, deviation: float, random_bytes: RandomBytes) -> Units:
    """Return Gaussian noise rounded to the grid, shape (size,).

    Parameters
    ----------
    deviation : float
        Its standard deviation, at most ``MOST_NOISE``.
    """
    noise = gaussian(size, random_bytes)
    noise *= deviation * GRID
    return np.rint(noise, out=noise)


def gaussian(size: int, random_bytes: RandomBytes) -> NDArray[np.float64]:
    """Return standard normal numbers by inversion, shape (size,).

    One bit of 64 is the sign, the others are how likely something further out is: down
    to 2**-64, or 9 standard deviations.
    """
    # Late: no other device is to load half a second of scipy for every message.
    from scipy.special import ndtri

    bits = np.frombuffer(random_bytes(8 * size), dtype="<u8")
    tail = (bits >> np.uint64(1)).astype(np.float64)
    tail += 0.5
    tail *= 2.0**-64  # in (0, 1/2]
    values: NDArray[np.float64] = ndtri(tail, out=tail)
    np.negative(values, out=values, where=(bits & np.uint64(1)).astype(np.bool_))
    return values
