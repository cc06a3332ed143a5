"""Part vectors in fewer bytes: float16, or int8 with a scale per output channel.

``float32`` is the vector itself. The other two are one flat array of bytes::

    exact   float32 of every tensor that is no matrix: biases, norms
    scales  int8 only: float32 of every row of every matrix, row = output channel
    values  float16 or int8 of the matrices, in the part's order

A value w of a row with scale s = max|row| / 127 becomes q = round(w / s). Uploads round
stochastically, q = floor(w / s + u) with u uniform in [0, 1): right on average (QSGD,
arXiv 1610.02132), and what one upload leaves out is added to the next one by the device
(error feedback, arXiv 1901.09847). Which parts are never quantised is ``arrays``'
business.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.parts import Layout, Vector

Dtype = Literal["float32", "float16", "int8"]
Bytes = NDArray[np.uint8]

_MOST = 127
_HALF_LIMIT = float(np.finfo(np.float16).max)
_LARGEST_SCALE = float(np.finfo(np.float32).max) / 128


class CodecError(ValueError):
    """Encoded bytes that do not fit the layout they are said to have."""


@lru_cache(maxsize=256)
def _pieces(layout: Layout) -> tuple[list[slice], list[tuple[slice, int]], int, int]:
    """Return the slices of exact tensors, slices and rows of matrices, both sizes."""
    exact, matrices, start = [], [], 0
    for _, shape in layout:
        piece = slice(start, start + int(np.prod(shape)))
        start = piece.stop
        if len(shape) >= 2:
            matrices.append((piece, shape[0]))
        else:
            exact.append(piece)
    values = sum(piece.stop - piece.start for piece, _ in matrices)
    return exact, matrices, start - values, values


def encoded_size(layout: Layout, dtype: Dtype) -> int:
    """Return the bytes of an encoded part, without the array's header."""
    _, matrices, exact, values = _pieces(layout)
    if dtype == "int8":
        return 4 * exact + 4 * sum(rows for _, rows in matrices) + values
    return 4 * exact + (4 if dtype == "float32" else 2) * values


def encode(
    vector: Vector,
    layout: Layout,
    dtype: Literal["float16", "int8"],
    rng: np.random.Generator | None = None,
) -> Bytes:
    """Return a part in fewer bytes.

    Parameters
    ----------
    vector : ndarray of float32, shape (n,)
    layout : sequence of (name, shape)
        Of the part, in order; the shapes sum up to n.
    rng : Generator, optional
        Rounds to int8 stochastically; None rounds to the nearest.

    Returns
    -------
    ndarray of uint8, shape (encoded_size(layout, dtype),)
        NaN and infinity stay what they are in float16 and in exact tensors; in int8
        they make the row's scale NaN or infinite.
    """
    exact, matrices, _, _ = _pieces(layout)
    pieces: list[NDArray[np.generic]] = [vector[piece] for piece in exact]
    if dtype == "float16":
        pieces += [
            vector[piece].clip(-_HALF_LIMIT, _HALF_LIMIT).astype("<f2")
            for piece, _ in matrices
        ]
    else:
        pairs = [_to_int8(vector[p].reshape(rows, -1), rng) for p, rows in matrices]
        pieces += [scales for scales, _ in pairs] + [values for _, values in pairs]
    return np.concatenate([piece.reshape(-1).view(np.uint8) for piece in pieces])


def _to_int8(
    matrix: NDArray[np.float32], rng: np.random.Generator | None
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    scales = np.abs(matrix).max(axis=1, initial=0) / np.float32(_MOST)
    with np.errstate(invalid="ignore"):  # a training that diverged: told by its scale
        scaled = matrix / np.where(scales > 0, scales, 1)[:, None]
        if rng is None:
            np.rint(scaled, out=scaled)
        else:
            scaled += rng.random(scaled.shape, dtype=np.float32)
            np.floor(scaled, out=scaled)
        return scales, scaled.clip(-_MOST, _MOST).astype(np.int8)


def decode(data: Bytes, layout: Layout, dtype: Literal["float16", "int8"]) -> Vector:
    """Return the part an encoded array stands for, float32, shape (n,).

    Raises
    ------
    CodecError
        If the length is not that of the layout, or a scale is impossible.
    """
    if data.size != encoded_size(layout, dtype):
        raise CodecError(
            f"{data.size} bytes, expected {encoded_size(layout, dtype)} in {dtype}"
        )
    exact, matrices, exact_values, values = _pieces(layout)
    vector = np.empty(exact_values + values, dtype=np.float32)
    _fill(vector, exact, data[: 4 * exact_values].view("<f4"))
    rest = data[4 * exact_values :]
    if dtype == "float16":
        _fill(vector, [piece for piece, _ in matrices], rest.view("<f2"))
        return vector
    scales = rest[: rest.size - values].view("<f4")
    if not ((scales >= 0) & (scales <= _LARGEST_SCALE)).all():  # NaN is neither
        raise CodecError("a scale is negative, NaN or too large")
    _fill(
        vector, [piece for piece, _ in matrices], rest[rest.size - values :].view("i1")
    )
    start = 0
    for piece, rows in matrices:
        vector[piece].reshape(rows, -1)[:] *= scales[start : start + rows, None]
        start += rows
    return vector


def _fill(vector: Vector, pieces: list[slice], source: NDArray[np.generic]) -> None:
    """Copy consecutive values of ``source`` into these slices."""
    start = 0
    for piece in pieces:
        size = piece.stop - piece.start
        vector[piece] = source[start : start + size]
        start += size
