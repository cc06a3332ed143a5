"""Clips what a client sends in a round, all of it together (``privacy-clip``).

The server clips again, exactly, and its guarantee rests on that alone
(``server_app.merging.noisy_sums``). Clipped here as well, an upload in few bytes spends
them on what will count.
"""

import math
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
from flwr.app import Array

from common.parts import Vector
from common.wire import Packing, pack, unpack

_TRIES = 3


def norm_of(vectors: Mapping[str, Vector]) -> float:
    """Return the L2 norm of several vectors as one."""
    squares = (np.square(v, dtype=np.float64).sum() for v in vectors.values())
    return math.sqrt(sum(float(square) for square in squares))


def clipped(vectors: Mapping[str, Vector], clip: float) -> dict[str, Vector]:
    """Return vectors of a joint norm of at most ``clip``, up to float32's rounding."""
    return _scaled(vectors, clip, norm_of(vectors))


def _scaled(
    vectors: Mapping[str, Vector], clip: float, norm: float
) -> dict[str, Vector]:
    if not norm > clip or not math.isfinite(norm):  # not finite: the server refuses it
        return dict(vectors)
    # Less by what rounding to float16 can add.
    factor = clip / norm * (1 - 2.0**-10)
    return {name: (v * factor).astype(np.float32) for name, v in vectors.items()}


def pack_clipped(
    vectors: Mapping[str, Vector],
    packing: Packing,
    rng: np.random.Generator,
    clip: float,
) -> tuple[dict[str, Vector], dict[str, Array]]:
    """Pack vectors so that what is read of them has a norm of at most ``clip``.

    Rounding to int8 by chance makes a vector longer, so it is measured afterwards and
    shortened by as much. It is rounded by the same draws again, to the same integers
    with smaller scales.

    Returns
    -------
    vectors : dict of str to vector
        What was packed.
    arrays : dict of str to Array
    """
    wanted = clipped(vectors, clip)
    if not math.isfinite(norm_of(wanted)):
        return wanted, pack(wanted, packing, rng)
    for _ in range(_TRIES):
        arrays = pack(wanted, packing, deepcopy(rng))
        norm = norm_of(unpack(arrays, packing))
        if not norm > clip:
            break
        wanted = _scaled(wanted, clip, norm)
    return wanted, arrays
