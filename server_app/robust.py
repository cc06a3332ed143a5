"""Merging rules that withstand bad or malicious deltas; per part, over its holders.

``clipped`` streams like the mean. ``trimmed-mean`` and ``median`` (Yin et al., ICML
2018) look at all holders of a coordinate at once: they ignore weights and need memory
for every reply of the round.
"""

import numpy as np
from numpy.typing import NDArray

from server_app.aggregation import PartMeans

Vector = NDArray[np.float32]
Positions = NDArray[np.intp]


class ClippedMeans(PartMeans):
    """Weighted means of deltas scaled down to a norm of at most ``clip_norm``."""

    def __init__(self, clip_norm: float) -> None:
        super().__init__()
        self._clip_norm = clip_norm

    def add(self, part: str, vector: Vector, weight: float) -> None:
        """Add a delta, shortened if its L2 norm is above the limit."""
        super().add(part, self._clipped(vector), weight)

    def add_at(
        self, part: str, size: int, positions: Positions, vector: Vector, weight: float
    ) -> None:
        """Add some coordinates of a part, shortened by the norm over these."""
        super().add_at(part, size, positions, self._clipped(vector), weight)

    def _clipped(self, vector: Vector) -> Vector:
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        if norm <= self._clip_norm:
            return vector
        return (vector * (self._clip_norm / norm)).astype(np.float32)


class TrimmedMeans(PartMeans):
    """Per coordinate, the mean without the largest and smallest values.

    Parameters
    ----------
    trim_share : float
        Share of holders cut at each end, rounded down; 0.5 keeps the median only.
    """

    def __init__(self, trim_share: float) -> None:
        super().__init__()
        self._trim_share = trim_share
        self._vectors: dict[str, list[Vector]] = {}

    def add(self, part: str, vector: Vector, weight: float) -> None:
        """Keep a delta that has weight; how much does not count."""
        if weight:
            self._vectors.setdefault(part, []).append(vector)

    def add_at(
        self, part: str, size: int, positions: Positions, vector: Vector, weight: float
    ) -> None:
        """Keep some coordinates of a part; the others are marked as not held."""
        whole = np.full(size, np.nan, dtype=np.float32)
        whole[positions] = vector
        self.add(part, whole, weight)

    def apply(self, model: dict[str, Vector]) -> None:
        """Add every trimmed mean to its part; the order of arrival does not matter."""
        super().apply(model)
        for part, vectors in self._vectors.items():
            # Sorting puts NaN, which marks coordinates that were not held, last.
            ranked = np.sort(np.stack(vectors), axis=0)
            holders = np.count_nonzero(~np.isnan(ranked), axis=0)
            cut = (self._trim_share * holders).astype(np.int64)
            cut = np.minimum(cut, np.maximum(holders - 1, 0) // 2)
            rank = np.arange(len(ranked))[:, None]
            kept = (cut <= rank) & (rank < holders - cut)
            total = ranked.sum(axis=0, where=kept, dtype=np.float64)
            mean = total / np.maximum(kept.sum(axis=0), 1)
            model[part] = model[part] + mean.astype(np.float32)


def merging_rule(name: str, clip_norm: float, trim_share: float) -> PartMeans:
    """Return empty sums of the rule with this name (``merging`` of the settings)."""
    if name == "clipped":
        return ClippedMeans(clip_norm)
    if name == "trimmed-mean":
        return TrimmedMeans(trim_share)
    return TrimmedMeans(0.5) if name == "median" else PartMeans()
