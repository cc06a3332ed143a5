"""Means of part vectors: over the replies of a round, and over the models of rounds.

Means over replies do not depend on the order of arrival: their sums are exact
(:mod:`server_app.merging.exact_sums`), and so are sums of weights, which are rounded to
2**-16. Any order of the replies gives the same bits, with memory for one accumulator.
The rounding error of a mean is below 2**-33 / (mean weight), far under float32's own.

Missing parts are skipped, never counted as zero (docs/methods.md, 5).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from common.parts import expert_id
from server_app.merging.exact_sums import LARGEST, ExactSums, Positions, Vector

_WEIGHT_GRID = 2**16

NONE: Mapping[str, int] = MappingProxyType({})


class Coordinates(NamedTuple):
    """What a vector covers of a part that has more."""

    positions: Positions
    """Distinct coordinates, shape (n,)."""
    size: int
    """Coordinates of the whole part."""


class ExactMean:
    """Order-free weighted mean of float32 vectors.

    By coordinate, vectors may cover different ones: a sub-model of some of the
    channels, or the rows of some experts. Each coordinate then has a sum of weights of
    its own, and one that nobody held does not move.

    Parameters
    ----------
    size : int
        Coordinates in all.
    by_coordinate : bool
    """

    def __init__(self, size: int, *, by_coordinate: bool = False) -> None:
        self._sums = ExactSums(size)
        self._weight = 0  # on its grid: a whole number of any size
        self._weights = np.zeros(size, dtype=np.int64) if by_coordinate else None

    @property
    def size(self) -> int:
        """Coordinates in all."""
        return self._sums.size

    def add(
        self, vector: Vector, weight: float, positions: Positions | None = None
    ) -> None:
        """Add ``weight * vector``; a weight of 0 adds nothing.

        Parameters
        ----------
        vector : ndarray of float32, shape (n,)
            Finite values.
        weight : float
            Non-negative and finite, rounded to 2**-16; sample counts are exact.
        positions : ndarray of int, shape (n,), optional
            Distinct coordinates, of a mean by coordinate; else n is the size.

        Raises
        ------
        ValueError
            If the shape or the weight is wrong, or the sum would overflow. Nothing is
            added then.
        TypeError
            If it is a mean by coordinate and positions are missing, or the other way
            round.
        """
        if (positions is None) != (self._weights is None):
            raise TypeError("merged as a whole or coordinate by coordinate, not both")
        shape = (self._sums.size,) if positions is None else positions.shape
        if vector.shape != shape:
            raise ValueError(f"shape {vector.shape}, expected {shape}")
        if (units := _on_grid(weight)) == 0:
            return
        if positions is not None and self._weight + units >= LARGEST:
            raise ValueError(f"weight {weight:g} leaves the range of the exact sum")
        self._sums.add(vector, units / _WEIGHT_GRID, positions)
        self._weigh(units, positions)

    def take_back(
        self, vector: Vector, weight: float, positions: Positions | None = None
    ) -> None:
        """Undo :meth:`add` of the same: the sum has the bits it had without it."""
        units = _on_grid(weight)
        self._sums.take_back(vector, units / _WEIGHT_GRID, positions)
        self._weigh(-units, positions)

    def _weigh(self, units: int, positions: Positions | None) -> None:
        self._weight += units
        if self._weights is not None:
            self._weights[positions] += units

    def state(self) -> dict[str, Any]:
        """Return the sums, to the bit."""
        weighed = {"weight": self._weight, "weights": self._weights}
        return {"sums": self._sums.state(), **weighed}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._weight, self._weights = state["weight"], state["weights"]
        self._sums.load_state(state["sums"])

    def mean(self) -> Vector | None:
        """Return sum(w v) / sum(w), shape (size,); None if nothing had weight.

        By coordinate it is 0 where nothing had weight. The sum is used up.
        """
        if self._weight == 0:
            return None
        weight, self._weight = self._weight / _WEIGHT_GRID, 0
        if self._weights is None:
            return self._sums.use_up(weight)
        return self._sums.over(np.maximum(self._weights, 1) / _WEIGHT_GRID)


def _on_grid(weight: float) -> int:
    """Return a weight as a whole number of 2**-16: sums of these are exact as well."""
    if not (np.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight {weight} is not a non-negative number")
    return round(weight * _WEIGHT_GRID)


class PartMeans:
    """One mean per part, made when its first vector lands.

    Attributes
    ----------
    moves : dict of str to int
        How often each part has moved; always empty where no reply comes late.
    awaited : mapping of str to int
        How many clients hold each part and are still at work, at the end of a round.
    """

    def __init__(self) -> None:
        self.moves: dict[str, int] = {}
        self.awaited: Mapping[str, int] = NONE
        self._means: dict[str, ExactMean] = {}
        self._added: Counter[str] = Counter()
        self._undo: list[Callable[[], object]] | None = None

    @contextmanager
    def whole(self, ordered: Mapping[str, int] = NONE) -> Iterator[None]:
        """Keep all that is added within, or, if anything fails within, none of it.

        Parameters
        ----------
        ordered : mapping of str to int
            What ``moves`` was when the reply was ordered that is added within.
        """
        undo: list[Callable[[], object]] = []
        self._undo = undo
        try:
            yield
        except BaseException:
            for take_back in reversed(undo):
                take_back()
            raise
        finally:
            self._undo = None

    def added(self, take_back: Callable[[], object]) -> None:
        """Note how what was just added is taken back, in case what follows fails."""
        if self._undo is not None:
            self._undo.append(take_back)

    def add(
        self, part: str, vector: Vector, weight: float, at: Coordinates | None = None
    ) -> None:
        """Add one client's vector of a part, or of what it held of it (``at``).

        See :meth:`ExactMean.add`.
        """
        if weight == 0:
            return
        size, positions = (vector.size, None) if at is None else (at.size, at.positions)
        if part not in self._means:
            by_coordinate = positions is not None
            self._means[part] = ExactMean(size, by_coordinate=by_coordinate)
        mean = self._means[part]
        mean.add(vector, weight, positions)
        self.added(partial(mean.take_back, vector, weight, positions))
        self.count(part)

    def count(self, part: str) -> None:
        """Count one more holder of a part."""
        self._added[part] += 1
        self.added(partial(self._added.subtract, [part]))

    def drop_experts(self, fewer_than: int) -> list[int]:
        """Drop the sums of experts of too few holders; return which, ascending.

        To be called before :meth:`apply`.
        """
        few = {
            expert: part
            for part, holders in self._added.items()
            if (expert := expert_id(part)) is not None and 0 < holders < fewer_than
        }
        for part in few.values():
            self.drop(part)
            del self._added[part]
        return sorted(few)

    def drop(self, part: str) -> None:
        """Drop the sum of a part."""
        del self._means[part]

    def apply(self, model: dict[str, Vector]) -> None:
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
        self._added.clear()

    def clear(self) -> None:
        """Drop what was added."""
        self._means.clear()
        self._added.clear()

    def state(self) -> dict[str, Any]:
        """Return what was added and not applied, to the bit."""
        means = {
            part: {"size": mean.size, "mean": mean.state()}
            for part, mean in self._means.items()
        }
        return {"means": means, "added": dict(self._added)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._means, self._added = {}, Counter(state["added"])
        for part, kept in state["means"].items():
            self._means[part] = ExactMean(kept["size"])
            self._means[part].load_state(kept["mean"])


class ServerAverage:
    """The running average of the server's models; docs/methods.md, 5, ours.

    ``average <- m average + (1 - m) model``, part by part.

    The global model swings from round to round where clients differ. Clients go on from
    the newest one; what is measured, saved and served is the average.

    Parameters
    ----------
    memory : float
        m, from 0 to below 1; 0 keeps nothing.

    Attributes
    ----------
    parts : dict of str to ndarray of float32
        The average; empty before the first round, and always with a memory of 0.
    rounds : int
        Rounds in it.
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self.parts: dict[str, Vector] = {}
        self.rounds = 0

    def add(self, model: Mapping[str, Vector]) -> None:
        """Take in the model of one more round."""
        if not self._memory:
            return
        # A plain mean until it is as old as the memory is long: no bias to the start.
        memory = min(self._memory, self.rounds / (self.rounds + 1))
        old, new = np.float32(memory), np.float32(1 - memory)
        self.parts = {
            part: old * self.parts.get(part, vector) + new * vector
            for part, vector in model.items()
        }
        self.rounds += 1

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on bit for bit."""
        return {"parts": self.parts, "rounds": self.rounds}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.parts, self.rounds = dict(state["parts"]), state["rounds"]
