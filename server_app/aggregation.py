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
_CHUNK = 1 << 15  # values handled at a time: temporaries stay in the cache


class ExactMean:
    """Order-free weighted mean of equally long float32 vectors.

    Parameters
    ----------
    size : int
        Values per vector.
    """

    def __init__(self, size: int) -> None:
        self._sum = np.zeros(size, dtype=np.int64)
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
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight {weight} is not a non-negative number")
        # On a grid of its own, the sum of weights is exact in any order as well.
        weight = round(weight * _WEIGHT_GRID) / _WEIGHT_GRID
        if weight == 0:
            return
        peak = max(float(vector.max()), -float(vector.min())) if vector.size else 0.0
        bound = self._bound + peak * weight * GRID
        if not bound < _LARGEST:
            raise ValueError(
                f"values up to {peak:g} with weight {weight:g} leave the range of the "
                "exact sum"
            )
        self._bound = bound
        buffer = np.empty(min(_CHUNK, vector.size))
        for start in range(0, vector.size, _CHUNK):
            piece = vector[start : start + _CHUNK]
            scaled = buffer[: piece.size]
            np.multiply(piece, weight * GRID, out=scaled, dtype=np.float64)
            np.rint(scaled, out=scaled)
            self._sum[start : start + _CHUNK] += scaled.astype(np.int64)
        self.weight += weight

    def mean(self) -> NDArray[np.float32] | None:
        """Return sum(w v) / sum(w), shape (size,); None if nothing had weight."""
        if self.weight == 0:
            return None
        result = np.empty(self._sum.size, dtype=np.float32)
        divisor = GRID * self.weight
        for start in range(0, result.size, _CHUNK):
            stop = start + _CHUNK
            result[start:stop] = self._sum[start:stop] / divisor
        return result


class PartMeans:
    """One :class:`ExactMean` per part, made when its first vector lands."""

    def __init__(self) -> None:
        self._means: dict[str, ExactMean] = {}

    def add(self, part: str, vector: NDArray[np.float32], weight: float) -> None:
        """Add one client's vector of a part; see :meth:`ExactMean.add`."""
        if weight:
            mean = self._means.setdefault(part, ExactMean(vector.size))
            mean.add(vector, weight)

    def apply(self, model: dict[str, NDArray[np.float32]]) -> None:
        """Add every mean delta to its part; parts nobody sent stay as they are."""
        for part, mean in self._means.items():
            delta = mean.mean()
            if delta is not None:
                model[part] = model[part] + delta
