"""Weighted means of part vectors that do not depend on the order of arrival.

Floating-point addition is not associative: merging replies as they land would give
another model on every run, and waiting for all of them needs memory for all of them.
Here every weighted value is rounded to a fixed grid of 2**-32 and summed as an
integer. Integer addition is associative, so any order gives the same bits, with memory
for one accumulator. The rounding error of the mean is below 2**-33 / (mean weight),
far under float32's own.

Missing parts are skipped, never counted as zero (METHODS 5).
"""

import numpy as np
from numpy.typing import NDArray

GRID = 2.0**32
_LARGEST = 2.0**62
_WEIGHT_GRID = 2**16

# Above 2**52, the spacing of float64 is 1: adding 1.5 * 2**52 rounds |x| < 2**51 to the
# nearest integer, ties to even as rint does, and leaves it in the low bits. Summing the
# bits is one pass where rounding, converting and summing are three; what the constant
# adds up to is taken off at the end, modulo 2**64.
_ROUNDER = 1.5 * 2.0**52
_ROUNDER_BITS = int(np.float64(_ROUNDER).view(np.int64))
_ROUNDER_LIMIT = 2.0**51

_COMPILED = 1 << 18  # values from which a compiled loop is worth its loading
_CHUNK = 1 << 14  # values summed at a time: temporaries stay in the cache
_FINISHED = 1 << 11  # values finished at a time: what a mean takes beside its sum


class ExactMean:
    """Order-free weighted mean of equally long float32 vectors.

    Parameters
    ----------
    size : int
        Values per vector.
    """

    def __init__(self, size: int) -> None:
        self._sum = np.zeros(size, dtype=np.int64)
        self._rounded = 0  # vectors whose bits were summed with the rounder in them
        self._bound = 0.0
        self.weight = 0.0

    def add(self, vector: NDArray[np.float32], weight: float) -> None:
        """Add ``weight * vector``; a weight of 0 adds nothing.

        Parameters
        ----------
        vector : ndarray of float32, shape (size,)
            Finite values.
        weight : float
            Non-negative and finite, rounded to 2**-16; sample counts are exact.

        Raises
        ------
        ValueError
            If the shape or the weight is wrong, or the sum would overflow.
        """
        if vector.shape != self._sum.shape:
            raise ValueError(f"shape {vector.shape}, expected {self._sum.shape}")
        weight = _on_grid(weight)
        if weight == 0:
            return
        if not (vector.size >= _COMPILED and self._add_compiled(vector, weight)):
            self._add(vector, weight)
        self.weight += weight

    def _add(self, vector: NDArray[np.float32], weight: float) -> None:
        before, self._bound = self._bound, _raised(self._bound, vector, weight)
        # Half of it: a difference of bounds is not exact.
        quick = self._bound - before < _ROUNDER_LIMIT / 2
        buffer = np.empty(min(_CHUNK, vector.size))
        for start in range(0, vector.size, _CHUNK):
            piece = vector[start : start + _CHUNK]
            total = self._sum[start : start + _CHUNK]
            scaled = buffer[: piece.size]
            scaled[:] = piece  # faster than a product of mixed types
            scaled *= weight * GRID
            if quick:
                scaled += _ROUNDER
                total += scaled.view(np.int64)
            else:
                total += np.rint(scaled, out=scaled).astype(np.int64)
        self._rounded += quick

    def _add_compiled(self, vector: NDArray[np.float32], weight: float) -> bool:
        """Add a vector in one pass; False, and nothing added, if it is out of range."""
        # Numba takes three seconds to load and to compile: small models never do.
        from server_app.rounded_sum import add_rounded, take_rounded

        vector, scale = np.ascontiguousarray(vector), weight * GRID
        # To look at the values before would be to read them twice.
        bits = np.int32(add_rounded(self._sum, vector, scale, _ROUNDER))
        grown = float(bits.view(np.float32)) * scale
        if not (grown < _ROUNDER_LIMIT and self._bound + grown < _LARGEST):
            take_rounded(self._sum, vector, scale, _ROUNDER)
            return False
        self._bound += grown
        self._rounded += 1
        return True

    def mean(self) -> NDArray[np.float32] | None:
        """Return sum(w v) / sum(w), shape (size,); None if nothing had weight.

        The sum is used up: its memory becomes the mean's, so that a model of any size
        is finished without a third copy.
        """
        if self.weight == 0:
            return None
        total, self._sum, size = self._sum, self._sum[:0].copy(), self._sum.size
        divisor, self.weight = GRID * self.weight, 0.0
        rounders = np.uint64(self._rounded * _ROUNDER_BITS % 2**64).astype(np.int64)
        result = total.view(np.float32)
        for start in range(0, size, _FINISHED):
            # A mean takes half the room of its sum: nothing unread is written over.
            piece = total[start : start + _FINISHED] - rounders
            result[start : start + piece.size] = piece / divisor
        del result
        total.resize((size + 1) // 2, refcheck=False)
        return total.view(np.float32)[:size]


class CoordinateMean:
    """Order-free weighted mean per coordinate, over those who held it.

    Vectors may cover different coordinates: a sub-model of some of the channels, or
    the rows of some experts. Each coordinate has a sum of weights of its own, and one
    that nobody held does not move.

    Parameters
    ----------
    size : int
        Coordinates in all.
    """

    def __init__(self, size: int) -> None:
        self._sum = np.zeros(size, dtype=np.int64)
        self._weights = np.zeros(size, dtype=np.int64)
        self._bound = 0.0

    def add(
        self, positions: NDArray[np.intp], vector: NDArray[np.float32], weight: float
    ) -> None:
        """Add ``weight * vector`` at some coordinates; a weight of 0 adds nothing.

        Parameters
        ----------
        positions : ndarray of int, shape (n,)
            Distinct coordinates.
        vector : ndarray of float32, shape (n,)
            Their finite values.
        weight : float
            As in :meth:`ExactMean.add`.

        Raises
        ------
        ValueError
            If the shape or the weight is wrong, or the sum would overflow.
        """
        if vector.shape != positions.shape:
            raise ValueError(f"shape {vector.shape}, expected {positions.shape}")
        weight = _on_grid(weight)
        if weight == 0:
            return
        self._bound = _raised(self._bound, vector, weight)
        for start in range(0, vector.size, _CHUNK):
            piece = vector[start : start + _CHUNK].astype(np.float64)
            where = positions[start : start + _CHUNK]
            self._sum[where] += np.rint(piece * (weight * GRID)).astype(np.int64)
            self._weights[where] += round(weight * _WEIGHT_GRID)

    def mean(self) -> NDArray[np.float32]:
        """Return sum(w v) / sum(w), shape (size,); 0 where nothing had weight."""
        divisor = np.maximum(self._weights, 1) * (GRID / _WEIGHT_GRID)
        return (self._sum / divisor).astype(np.float32)


def _on_grid(weight: float) -> float:
    """Return the weight rounded to a grid, where sums of weights are exact as well."""
    if not (np.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight {weight} is not a non-negative number")
    return round(weight * _WEIGHT_GRID) / _WEIGHT_GRID


def _raised(bound: float, vector: NDArray[np.float32], weight: float) -> float:
    """Return the bound of the sum when a vector has joined it."""
    peak = max(float(vector.max()), -float(vector.min())) if vector.size else 0.0
    bound += peak * weight * GRID
    if not bound < _LARGEST:
        raise ValueError(
            f"values up to {peak:g} with weight {weight:g} leave the range of the "
            "exact sum"
        )
    return bound


class PartMeans:
    """One mean per part, made when its first vector lands."""

    def __init__(self) -> None:
        self._means: dict[str, ExactMean | CoordinateMean] = {}

    def add(self, part: str, vector: NDArray[np.float32], weight: float) -> None:
        """Add one client's vector of a part; see :meth:`ExactMean.add`."""
        if weight:
            mean = self._means.get(part)
            if mean is None:
                mean = self._means[part] = ExactMean(vector.size)
            if not isinstance(mean, ExactMean):
                raise TypeError(f"{part} is merged coordinate by coordinate")
            mean.add(vector, weight)

    def add_at(
        self,
        part: str,
        size: int,
        positions: NDArray[np.intp],
        vector: NDArray[np.float32],
        weight: float,
    ) -> None:
        """Add some coordinates of a part of ``size``; see :class:`CoordinateMean`."""
        if weight:
            mean = self._means.get(part)
            if mean is None:
                mean = self._means[part] = CoordinateMean(size)
            if not isinstance(mean, CoordinateMean):
                raise TypeError(f"{part} is merged as a whole")
            mean.add(positions, vector, weight)

    def apply(self, model: dict[str, NDArray[np.float32]]) -> None:
        """Add every mean delta to its part, and empty the sums.

        Parts nobody sent stay as they are.
        """
        # Sums go as they are used up: they are twice as large as the model.
        while self._means:
            part, sums = self._means.popitem()
            delta = sums.mean()
            del sums
            if delta is not None:
                model[part] = np.add(model[part], delta, out=delta)
