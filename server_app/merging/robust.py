"""Merging rules by name, and those that withstand bad or malicious deltas.

``clipped`` streams like the mean. Any other rule is a function of all deltas of a part
and needs memory for every reply of the round: ``trimmed-mean`` and ``median`` (Yin et
al., ICML 2018), which ignore weights, and what a user brings.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.registry import Registry
from common.settings.sections import MergeSettings
from server_app.merging.means import Coordinates, PartMeans

Vector = NDArray[np.float32]

Rule = Callable[[Vector, NDArray[np.float64], MergeSettings], ArrayLike]
"""Deltas of one part, shape (n, size), one row per holder and NaN where a holder does
not have a coordinate; their weights, shape (n,); the settings. Returns the change of
the part, shape (size,), 0 where nobody has the coordinate."""

MERGING = Registry(
    kind="merging",
    setting="merging",
    expected="a function of (deltas, weights, settings) that returns a delta",
    built_in={
        "mean": "server_app.merging.means:PartMeans",
        "clipped": "server_app.merging.robust:ClippedMeans",
        "trimmed-mean": "server_app.merging.robust:trimmed_mean",
        "median": "server_app.merging.robust:median",
    },
)


class ClippedMeans(PartMeans):
    """Weighted means of deltas scaled down to a norm of at most ``clip_norm``."""

    def __init__(self, clip_norm: float) -> None:
        super().__init__()
        self._clip_norm = clip_norm

    def add(
        self, part: str, vector: Vector, weight: float, at: Coordinates | None = None
    ) -> None:
        """Add a delta, shortened if the L2 norm of what was sent is above the limit."""
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        if norm > self._clip_norm:
            vector = (vector * (self._clip_norm / norm)).astype(np.float32)
        super().add(part, vector, weight, at)


class StackedMerge(PartMeans):
    """Merging by a function of all deltas of a part at once, kept until then.

    Parameters
    ----------
    rule : Rule
    settings : MergeSettings
        ``merging`` is the rule's name.
    """

    def __init__(self, rule: Rule, settings: MergeSettings) -> None:
        super().__init__()
        self._rule, self._settings = rule, settings
        self._vectors: dict[str, list[tuple[Vector, float]]] = {}

    def add(
        self, part: str, vector: Vector, weight: float, at: Coordinates | None = None
    ) -> None:
        """Keep a delta that has weight; coordinates not held are marked as such."""
        if not weight:
            return
        if at is not None:
            held, vector = vector, np.full(at.size, np.nan, dtype=np.float32)
            vector[at.positions] = held
        vectors = self._vectors.setdefault(part, [])
        vectors.append((vector, weight))
        self.added(vectors.pop)
        self.count(part)

    def drop(self, part: str) -> None:
        """Drop what was kept of a part."""
        del self._vectors[part]

    def apply(self, model: dict[str, Vector]) -> None:
        """Add what the rule makes of every part's deltas; empty afterwards."""
        while self._vectors:
            part, kept = self._vectors.popitem()
            if kept:  # else what there was has been taken back
                # In an order of their own: that of arrival is chance.
                kept.sort(key=lambda pair: blake2b(pair[0].tobytes()).digest())
                vectors, weights = zip(*kept, strict=True)
                delta = self._merged(np.stack(vectors), np.array(weights))
                model[part] = model[part] + delta
        super().apply(model)

    def clear(self) -> None:
        """Drop what was added."""
        super().clear()
        self._vectors.clear()

    def state(self) -> dict[str, Any]:
        """Return the deltas that are kept."""
        vectors = {part: [*map(list, kept)] for part, kept in self._vectors.items()}
        return {**super().state(), "vectors": vectors}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        self._vectors = {
            part: [(vector, weight) for vector, weight in kept]
            for part, kept in state["vectors"].items()
        }

    def _merged(self, deltas: Vector, weights: NDArray[np.float64]) -> Vector:
        delta = np.asarray(self._rule(deltas, weights, self._settings))
        if delta.shape != deltas.shape[1:] or not np.isfinite(delta).all():
            raise MERGING.error(
                self._settings.merging,
                f"returned values of shape {delta.shape}: expected finite numbers of "
                f"shape {deltas.shape[1:]}",
            )
        return delta.astype(np.float32)


def trimmed_mean(
    deltas: Vector, weights: NDArray[np.float64], settings: MergeSettings
) -> NDArray[np.float64]:
    """Return the mean without the largest and smallest values of each coordinate.

    The share ``trim-share`` of the holders is cut at each end, rounded down, but never
    all of them.
    """
    return _trimmed(deltas, settings.trim_share)


def median(
    deltas: Vector, weights: NDArray[np.float64], settings: MergeSettings
) -> NDArray[np.float64]:
    """Return the median of each coordinate."""
    return _trimmed(deltas, 0.5)


def _trimmed(deltas: Vector, share: float) -> NDArray[np.float64]:
    # Sorting puts NaN, which marks coordinates that were not held, last.
    ranked = np.sort(deltas, axis=0)
    holders = np.count_nonzero(~np.isnan(ranked), axis=0)
    cut = _cut(share, holders)
    rank = np.arange(len(ranked))[:, None]
    kept = (cut <= rank) & (rank < holders - cut)
    total = ranked.sum(axis=0, where=kept, dtype=np.float64)
    return total / np.maximum(kept.sum(axis=0), 1)


def _cut(share: float, holders: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many values go at each end: never all of them."""
    cut = (share * holders).astype(np.int64)
    return np.minimum(cut, np.maximum(holders - 1, 0) // 2)


def withstands(settings: MergeSettings, holders: int) -> int | None:
    """Return how many of a part's holders may send anything and decide nothing.

    With as many liars every coordinate stays within the range of the honest values.

    Parameters
    ----------
    settings : MergeSettings
    holders : int
        Above 0.

    Returns
    -------
    int or None
        0 of a mean, clipped or not: one liar moves it, if not far. None of a rule of
        one's own.
    """
    shares = {"mean": 0.0, "clipped": 0.0, "median": 0.5}
    shares["trimmed-mean"] = settings.trim_share
    share = shares.get(settings.merging)
    return None if share is None else int(_cut(share, np.array(holders)))


def merging_rule(settings: MergeSettings) -> PartMeans:
    """Return empty sums of the rule that the setting ``merging`` names.

    Raises
    ------
    SettingsError
        If there is none.
    """
    rule = MERGING.find(settings.merging)
    if rule is PartMeans:
        return PartMeans()
    if rule is ClippedMeans:
        return ClippedMeans(settings.clip_norm)
    return StackedMerge(rule, settings)
