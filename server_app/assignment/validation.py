"""Input checks whose messages name the client or the expert at fault.

Here lives what is wrong with an input whatever the solver: a shape, a NaN, a negative
budget, crossed bounds. Whether a well-formed problem *can be satisfied* is not asked
here: solvers find out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ProblemError(ValueError):
    """Numbers that state no problem; the message is one line that says which."""


_Scalar = TypeVar("_Scalar", bound=np.generic)

#: Integers beyond this lose exactness as float64 and crowd the solvers' int64 sums.
MAX_WHOLE = 2**52


def finite_matrix(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Return ``value`` as a read-only finite (C, E) float matrix, C, E >= 1."""
    array = np.array(value, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ProblemError(
            f"{name} has shape {array.shape}: expected (clients, experts), "
            "at least one of each"
        )
    bad = ~np.isfinite(array)
    if bad.any():
        client, expert = np.argwhere(bad)[0]
        raise ProblemError(
            f"{name} of client {client} for expert {expert} is "
            f"{array[client, expert]}: expected a finite number (a pair that must not "
            "be held belongs into forbidden)"
        )
    return _frozen(array)


def finite_vector(
    name: str,
    value: ArrayLike,
    axis: str,
    size: int | None = None,
    *,
    minimum: float | None = None,
) -> NDArray[np.float64]:
    """Return ``value`` as a read-only finite float vector; a scalar is repeated."""
    array = np.array(value, dtype=np.float64)
    if array.ndim == 0 and size is not None:
        array = np.full(size, array[()])
    if array.ndim != 1 or (size is not None and array.size != size):
        expected = "one dimension" if size is None else f"({size},)"
        raise ProblemError(
            f"{name} has shape {array.shape}: expected {expected}, one per {axis}"
        )
    bad = ~np.isfinite(array)
    if minimum is not None:
        bad |= array < minimum
    if bad.any():
        index = int(np.argmax(bad))
        allowed = "a finite number"
        if minimum is not None:
            allowed += f" >= {minimum:g}"
        raise ProblemError(
            f"{name} of {axis} {index} is {array[index]}: expected {allowed}"
        )
    return _frozen(array)


def whole_vector(
    name: str,
    value: ArrayLike,
    axis: str,
    size: int | None = None,
    *,
    minimum: int = 0,
) -> NDArray[np.int64]:
    """Return ``value`` as a read-only int64 vector; floats must be whole numbers."""
    array = finite_vector(name, value, axis, size, minimum=minimum)
    bad = (array != np.floor(array)) | (array > MAX_WHOLE)
    if bad.any():
        index = int(np.argmax(bad))
        raise ProblemError(
            f"{name} of {axis} {index} is {array[index]}: expected a whole number "
            f"<= {MAX_WHOLE}"
        )
    return _frozen(array.astype(np.int64))


def pair_mask(
    name: str,
    value: ArrayLike | Iterable[tuple[int, int]] | None,
    shape: tuple[int, int],
) -> NDArray[np.bool_] | None:
    """Return a read-only (C, E) mask from a boolean mask or (client, expert) pairs."""
    if value is None:
        return None
    array = np.asarray(value if isinstance(value, np.ndarray) else list(value))  # type: ignore[arg-type]
    if array.dtype == np.bool_:
        if array.shape != shape:
            raise ProblemError(f"{name} has shape {array.shape}: expected {shape}")
        return _frozen(array.copy())
    mask = np.zeros(shape, dtype=np.bool_)
    if array.size == 0:
        return _frozen(mask)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise ProblemError(
            f"{name} must be a boolean mask of shape {shape} or (client, expert) "
            f"index pairs, not {array.dtype} of shape {array.shape}"
        )
    for column, (axis, size) in enumerate(
        zip(("client", "expert"), shape, strict=True)
    ):
        bad = (array[:, column] < 0) | (array[:, column] >= size)
        if bad.any():
            raise ProblemError(
                f"{name} names {axis} {array[np.argmax(bad), column]}: "
                f"there are {size} ({axis} 0 to {size - 1})"
            )
    mask[array[:, 0], array[:, 1]] = True
    return _frozen(mask)


def _frozen(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    array.setflags(write=False)
    return array
