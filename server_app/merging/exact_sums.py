"""Sums of float32 vectors, exact on a fixed grid: any order gives the same bits.

Floating-point addition is not associative: summing replies as they land would give
another model on every run, and waiting for all of them needs memory for all of them.
Here every weighted value is rounded to a fixed grid of 2**-32 and summed as an
integer. Integer addition is associative, and an addition can be taken back to the bit.

What 64 bits of a sum cannot hold any more is carried into a second vector, which most
runs never need: 40 clients of 100 000 texts fill them. The integers stay the same, so
the bits do not depend on when that happened.

What the sums are of, and what they are divided by: :mod:`server_app.merging.means`.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.grid import GRID

Vector = NDArray[np.float32]
Positions = NDArray[np.intp]

LARGEST = 2.0**62
"""What no sum in 64 bits reaches."""

_CARRY_BITS = 32
_CARRY = 2**_CARRY_BITS
_REACH = LARGEST * _CARRY

# Above 2**52, the spacing of float64 is 1: adding 1.5 * 2**52 rounds |x| < 2**51 to the
# nearest integer, ties to even as rint does, and leaves it in the low bits. Summing the
# bits is one pass where rounding, converting and summing are three; what the constant
# adds up to is taken off at the end, modulo 2**64.
_ROUNDER = 1.5 * 2.0**52
_ROUNDER_BITS = int(np.float64(_ROUNDER).view(np.int64))
_ROUNDER_LIMIT = 2.0**51

_COMPILED = 1 << 18  # values from which a compiled loop is worth its loading
_CHUNK = 1 << 14  # values summed at a time: temporaries stay in the cache
_FINISHED = 1 << 11  # values divided at a time: what that takes beside the sums


class ExactSums:
    """One sum per coordinate, each an integer of 64 bits and what it carries.

    Parameters
    ----------
    size : int
        Coordinates.
    """

    def __init__(self, size: int) -> None:
        self._low = np.zeros(size, dtype=np.int64)
        self._high: NDArray[np.int64] | None = None  # in units of 2**32
        self._rounded = 0  # vectors whose bits were summed with the rounder in them
        self._bound = 0.0  # no sum in ``_low`` is larger
        self._reach = 0.0  # no sum as a whole is larger

    @property
    def size(self) -> int:
        """Coordinates."""
        return self._low.size

    def add(
        self, vector: Vector, weight: float, where: Positions | None = None
    ) -> None:
        """Add ``weight * vector``.

        Parameters
        ----------
        vector : ndarray of float32, shape (n,)
            Finite values.
        weight : float
            Above 0.
        where : ndarray of int, shape (n,), optional
            Distinct coordinates; all of them, in order, if left out.

        Raises
        ------
        ValueError
            If a sum would overflow, or a value is no number. Nothing is added then.
        """
        if where is None and self._add_compiled(vector, weight):
            return
        peak = _peak(vector) * weight * GRID
        if not self._reach + peak < _REACH:
            raise ValueError(
                f"values up to {peak / weight / GRID:g} with weight {weight:g} leave "
                "the range of the exact sum"
            )
        self._reach += peak
        fits = self._make_room(peak)
        quick = where is None and peak < _ROUNDER_LIMIT / 2
        for piece, scaled in _scaled(vector, weight):
            if quick:
                scaled += _ROUNDER
                self._low[piece] += scaled.view(np.int64)
            else:
                place = piece if where is None else where[piece]
                self._add_rounded(place, scaled, carried=not fits)
        self._rounded += quick

    def take_back(
        self, vector: Vector, weight: float, where: Positions | None = None
    ) -> None:
        """Undo :meth:`add` of the same: the sums are what they were without it."""
        fits = self._make_room(_peak(vector) * weight * GRID)
        for piece, scaled in _scaled(vector, -weight):
            place = piece if where is None else where[piece]
            self._add_rounded(place, scaled, carried=not fits)

    def add_units(self, units: NDArray[np.float64]) -> None:
        """Add whole numbers of the grid, 1/GRID each; their memory is used up.

        Parameters
        ----------
        units : ndarray of float64, shape (size,)
            Integers below 2**53 in size.

        Raises
        ------
        ValueError
            If a sum would overflow. Nothing is added then.
        """
        peak = float(np.abs(units).max(initial=0.0))
        if not self._reach + peak < _REACH:
            raise ValueError(f"{peak:g} units leave the range of the exact sum")
        self._reach += peak
        fits = self._make_room(peak)
        self._add_rounded(slice(None), units, carried=not fits)

    def state(self) -> dict[str, Any]:
        """Return the sums, to the bit."""
        return {
            "low": self._low,
            "high": self._high,
            "rounded": self._rounded,
            "bound": self._bound,
            "reach": self._reach,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._low, self._high = state["low"], state["high"]
        self._rounded = state["rounded"]
        self._bound, self._reach = state["bound"], state["reach"]

    def over(self, divisors: NDArray[np.float64]) -> Vector:
        """Return every sum over its divisor, both of shape (size,)."""
        return self._quotient(slice(None), divisors).astype(np.float32)

    def use_up(self, divisor: float) -> Vector:
        """Return every sum over one divisor, shape (size,), and keep none.

        The memory of the sums becomes the result's, so that a model of any size is
        finished without a third copy.

        Parameters
        ----------
        divisor : float
        """
        size, result = self.size, self._low.view(np.float32)
        for start in range(0, size, _FINISHED):
            # A result takes half the room of its sum: nothing unread is written over.
            piece = self._quotient(slice(start, start + _FINISHED), divisor)
            result[start : start + piece.size] = piece
        del result
        total, self._low, self._high = self._low, np.empty(0, np.int64), None
        total.resize((size + 1) // 2, refcheck=False)
        return total.view(np.float32)[:size]

    def _add_compiled(self, vector: Vector, weight: float) -> bool:
        """Add a vector in one pass; False, and nothing added, if that cannot be done.

        It is for long vectors of values in range, and needs the extra ``fast``.
        """
        if vector.size < _COMPILED or (loop := _compiled_loop()) is None:
            return False
        vector, scale = np.ascontiguousarray(vector), weight * GRID
        # To look at the values before would be to read them twice.
        bits = np.int32(loop.add_rounded(self._low, vector, scale, _ROUNDER))
        grown = float(bits.view(np.float32)) * scale
        if not (grown < _ROUNDER_LIMIT and self._has_room(grown)):
            loop.take_rounded(self._low, vector, scale, _ROUNDER)
            return False
        self._rounded += 1
        return True

    def _add_rounded(
        self,
        where: slice | Positions,
        values: NDArray[np.float64],
        *,
        carried: bool,
    ) -> None:
        """Round values, in place, and add them, after room was made for them."""
        np.rint(values, out=values)
        if carried:
            if self._high is None:
                self._high = np.zeros(self.size, dtype=np.int64)
            above = np.floor(values / _CARRY)
            self._high[where] += above.astype(np.int64)
            values -= above * _CARRY
        self._low[where] += values.astype(np.int64)

    def _make_room(self, peak: float) -> bool:
        """Carry if need be; False if values up to ``peak`` have to be as well."""
        fits = peak < LARGEST / 2
        if not self._has_room(peak if fits else _CARRY):
            self._carry()
            self._bound += peak if fits else _CARRY
        return fits

    def _has_room(self, peak: float) -> bool:
        """Whether values up to ``peak`` fit as things are; if so, they are counted."""
        if not self._bound + peak < LARGEST:
            return False
        self._bound += peak
        return True

    def _carry(self) -> None:
        if self._high is None:
            self._high = np.zeros(self.size, dtype=np.int64)
        for start in range(0, self.size, _CHUNK):
            piece = self._low[start : start + _CHUNK]
            piece -= self._rounders
            self._high[start : start + _CHUNK] += piece >> _CARRY_BITS
            piece &= _CARRY - 1
        self._rounded, self._bound = 0, float(_CARRY)

    @property
    def _rounders(self) -> np.int64:
        """What the rounders in ``_low`` add up to, modulo 2**64."""
        rounders = np.uint64(self._rounded * _ROUNDER_BITS % 2**64).astype(np.int64)
        return np.int64(rounders)

    def _quotient(
        self, piece: slice, divisor: float | NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return some sums over a divisor: rounded once, whatever was carried."""
        low = self._low[piece] - self._rounders
        total: NDArray[np.float64] = low / GRID
        if self._high is not None:
            whole = self._high[piece] + (low >> _CARRY_BITS)
            total = whole + (low & (_CARRY - 1)) / GRID
        return total / divisor


@cache
def _compiled_loop() -> ModuleType | None:
    """Return the loop that Numba compiles; None where Numba is not installed."""
    # It takes three seconds to load and to compile: small models never do.
    try:
        from server_app.merging import rounded_sum
    except ModuleNotFoundError:
        return None
    return rounded_sum


def _peak(vector: Vector) -> float:
    return max(float(vector.max()), -float(vector.min())) if vector.size else 0.0


def _scaled(
    vector: Vector, weight: float
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield pieces of a vector on the grid, not yet rounded, in memory used again."""
    buffer = np.empty(min(_CHUNK, vector.size))
    for start in range(0, vector.size, _CHUNK):
        piece = slice(start, min(start + _CHUNK, vector.size))
        scaled = buffer[: piece.stop - start]
        scaled[:] = vector[piece]  # faster than a product of mixed types
        scaled *= weight * GRID
        yield piece, scaled
