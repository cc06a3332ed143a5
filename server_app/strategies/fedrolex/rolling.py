"""The rolling window of FedRolex over named tensors; docs/methods.md, 4.

A sub-model of rate r keeps, of every layer with K channels, the ceil(r K) channels
{t mod K, t+1 mod K, ...} in round t (Eq. 2 of the paper). The window of a dimension
depends only on its size and on the round, so whatever is added channel by channel,
such as the two branches of a residual block, keeps the same channels. Dimensions that
are no channels (inputs, classes, kernels) are as long in the sub-model as in the full
one and are kept whole.

Pure numbers: layouts and vectors, no modules.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Layout = tuple[tuple[str, tuple[int, ...]], ...]


def window(size: int, kept: int, server_round: int) -> NDArray[np.intp]:
    """Return the channels kept of one dimension, in the sub-model's order.

    Parameters
    ----------
    size, kept : int
        Length of the dimension in the full and in the sub-model.
    server_round : int
        Round t; the window moves by one channel a round and wraps around.

    Returns
    -------
    ndarray of int, shape (kept,)
    """
    if kept == size:
        return np.arange(size)
    return (server_round + np.arange(kept)) % size


@lru_cache(maxsize=8)  # of a round: one entry per part and rate
def window_positions(
    full: Layout, narrow: Layout, server_round: int
) -> NDArray[np.intp]:
    """Return where the sub-model's values lie in the full model's flat vector.

    Parameters
    ----------
    full, narrow : Layout
        Names and shapes of the tensors of a part, at full and at reduced width.
    server_round : int
        Round t.

    Returns
    -------
    ndarray of int, shape (values of the narrow part,)
        ``vector[positions]`` is the sub-model; distinct. Read-only.

    Raises
    ------
    ValueError
        If the layouts are not of the same network.
    """
    pieces, start = [], 0
    for (name, shape), (narrow_name, kept) in zip(full, narrow, strict=True):
        if name != narrow_name or len(shape) != len(kept):
            raise ValueError(f"{narrow_name} {kept} is no sub-tensor of {name} {shape}")
        windows = [
            window(size, keep, server_round)
            for size, keep in zip(shape, kept, strict=True)
        ]
        inside = np.ravel_multi_index(np.ix_(*windows), shape)
        pieces.append(start + inside.ravel())
        start += int(np.prod(shape))
    positions = np.concatenate(pieces)
    positions.flags.writeable = False
    return positions
