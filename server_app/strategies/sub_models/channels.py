"""Windows of channels over named tensors; docs/methods.md, 4.

A sub-model of rate r keeps, of every layer with K channels, the ceil(r K) channels
{s mod K, s+1 mod K, ...}. FedRolex starts at its round, s = t (Eq. 2), HeteroFL always
at the first, s = 0. The window of a dimension depends only on its size and on s, so
whatever is added channel by channel, such as the two branches of a residual block,
keeps the same channels. Dimensions that are no channels (inputs, classes, kernels) are
as long in the sub-model as in the full one and are kept whole.

Pure numbers: layouts and vectors, no modules.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Layout = tuple[tuple[str, tuple[int, ...]], ...]


def window(size: int, kept: int, start: int) -> NDArray[np.intp]:
    """Return the channels kept of one dimension, in the sub-model's order.

    Parameters
    ----------
    size, kept : int
        Length of the dimension in the full and in the sub-model.
    start : int
        Its first channel; it wraps around.

    Returns
    -------
    ndarray of int, shape (kept,)
    """
    if kept == size:
        return np.arange(size)
    return (start + np.arange(kept)) % size


@lru_cache(maxsize=8)  # of a round: one entry per part and rate
def window_positions(full: Layout, narrow: Layout, start: int) -> NDArray[np.intp]:
    """Return where the sub-model's values lie in the full model's flat vector.

    Parameters
    ----------
    full, narrow : Layout
        Names and shapes of the tensors of a part, at full and at reduced width.
    start : int
        First channel of every window.

    Returns
    -------
    ndarray of int, shape (values of the narrow part,)
        ``vector[positions]`` is the sub-model; distinct. Read-only.

    Raises
    ------
    ValueError
        If the layouts are not of the same network.
    """
    pieces, offset = [], 0
    for (name, shape), (narrow_name, kept) in zip(full, narrow, strict=True):
        if name != narrow_name or len(shape) != len(kept):
            raise ValueError(f"{narrow_name} {kept} is no sub-tensor of {name} {shape}")
        windows = [
            window(size, keep, start) for size, keep in zip(shape, kept, strict=True)
        ]
        inside = np.ravel_multi_index(np.ix_(*windows), shape)
        pieces.append(offset + inside.ravel())
        offset += int(np.prod(shape))
    positions = np.concatenate(pieces)
    positions.flags.writeable = False
    return positions
