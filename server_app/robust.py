"""Merging rules that withstand bad or malicious deltas; per part, over its holders.

``clipped`` streams like the mean. ``trimmed-mean`` and ``median`` (Yin et al., ICML
2018) look at all holders of a coordinate at once: they ignore weights and need memory
for every reply of the round.
"""

import numpy as np
from numpy.typing import NDArray

from server_app.aggregation import PartMeans

Vector = NDArray[np.float32]


class ClippedMeans(PartMeans):
    """Weighted means of deltas scaled down to a norm of at most ``clip_norm``."""

    def __init__(self, clip_norm: float) -> None:
        super().__init__()
        self._clip_norm = clip_norm

    def add(self, part: str, vector: Vector, weight: float) -> None:
        """Add a delta, shortened if its L2 norm is above the limit."""
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        if norm > self._clip_norm:
            vector = (vector * (self._clip_norm / norm)).astype(np.float32)
        super().add(part, vector, weight)


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

    def apply(self, model: dict[str, Vector]) -> None:
        """Add every trimmed mean to its part; the order of arrival does not matter."""
        super().apply(model)
        for part, vectors in self._vectors.items():
            ranked = np.sort(np.stack(vectors), axis=0)
            cut = min(int(self._trim_share * len(ranked)), (len(ranked) - 1) // 2)
            kept = ranked[cut : len(ranked) - cut].astype(np.float64)
            model[part] = model[part] + kept.mean(axis=0).astype(np.float32)


def merging_rule(name: str, clip_norm: float, trim_share: float) -> PartMeans:
    """Return empty sums of the rule with this name (``merging`` of the settings)."""
    if name == "clipped":
        return ClippedMeans(clip_norm)
    if name == "trimmed-mean":
        return TrimmedMeans(trim_share)
    return TrimmedMeans(0.5) if name == "median" else PartMeans()
