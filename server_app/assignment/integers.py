"""The problem in the integers that every solver shares.

How an `AssignmentProblem` becomes an `IntegerProblem` is in
:mod:`server_app.assignment.rounding`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["IntegerProblem", "Ints", "Mask", "Violation", "blocks"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: Rows of a (C, E) matrix that are looked at together.
_BLOCK = 1 << 14


def blocks(rows: int) -> Iterator[slice]:
    """Yield slices of so many rows: what is made of a block is small, and let go of."""
    for start in range(0, rows, _BLOCK):
        yield slice(start, min(start + _BLOCK, rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class Violation:
    """By how much a matrix misses each bound that may be relaxed.

    Parameters
    ----------
    short, over : ndarray of int, shape (E,)
        Load quanta below ``lower`` and above ``upper``.
    groups : ndarray of bool, shape (C, G)
        Groups of which a client holds nothing.
    """

    short: Ints
    over: Ints
    groups: Mask

    def total(self, placement: int) -> int:
        """Return the summed violation; a missing placement counts so many quanta."""
        load = int(self.short.sum()) + int(self.over.sum())
        return load + placement * int(self.groups.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerProblem:
    """An assignment problem rounded to integers.

    Parameters
    ----------
    gain : ndarray of int, shape (C, E)
        Fitness times ``scale``.
    scale : float
        Integer units per unit of fitness.
    allowed : ndarray of bool, shape (C, E)
        Pairs that are not forbidden and fit.
    sizes : ndarray of int, shape (E,)
        Budget each expert takes; all ones for a count budget.
    capacity : ndarray of int, shape (C,)
        Budgets.
    weights : ndarray of int, shape (C,)
        Load quanta a client adds to an expert; all ones for counted loads.
    quantum : float
        Load per quantum.
    lower, upper : ndarray of int, shape (E,)
        Band in load quanta, not negative. Crossed where no whole load lies within it.
    groups : ndarray of int, shape (E,)
        Group of each expert, from 0 to G - 1; -1 when there are no groups.
    labels : ndarray of int, shape (G,)
        The caller's label of each group.
    """

    gain: Ints
    scale: float
    allowed: Mask
    sizes: Ints
    capacity: Ints
    weights: Ints
    quantum: float
    lower: Ints
    upper: Ints
    groups: Ints
    labels: Ints

    @property
    def is_flow(self) -> bool:
        """Whether sizes and loads are counts, so that flow is exact."""
        return bool((self.sizes == 1).all() and (self.weights == 1).all())

    @cached_property
    def precision(self) -> float:
        """How far rounding can put an answer from the optimum, in fitness.

        A coefficient is rounded by less than one step, and two matrices are compared.
        """
        most = self.quota if bool((self.sizes == 1).all()) else self.allowed
        return 2.0 * int(most.sum()) / self.scale

    @property
    def placement(self) -> int:
        """Load quanta that weigh as much as one missing placement."""
        return max(1, round(float(self.weights.mean())))

    @cached_property
    def quota(self) -> Ints:
        """Most experts each client of a count budget can hold, shape (C,)."""
        return np.minimum(self.capacity, self.allowed.sum(axis=1))

    @cached_property
    def steepest_gain(self) -> int:
        """Most that one placement can gain, at least 1."""
        return max(int(self.gain.max()), -int(self.gain.min()), 1)

    @property
    def violation_price(self) -> int:
        """Integer fitness above what one unit of violation can ever gain.

        An exchange passes each expert at most once, so no chain of exchanges gains more
        than this. For flows only: elsewhere one unit may be worth more.
        """
        return (2 * len(self.sizes) + 4) * self.steepest_gain

    def load_steps(self, experts: Ints, loads: Ints, steep: int | None = None) -> Ints:
        """Return the cost of raising counted loads by one.

        Outside the band a step costs, or saves, ``steep``: `violation_price` unless
        given.
        """
        price = self.violation_price if steep is None else steep
        above = (loads >= self.upper[experts]).astype(np.int64)
        below = (loads < self.lower[experts]).astype(np.int64)
        cost: Ints = price * (above - below)
        return cost

    def load(self, matrix: Mask) -> Ints:
        """Return the load quanta of each expert, shape (E,)."""
        if (self.weights == 1).all():
            return matrix.sum(axis=0, dtype=np.int64)
        load: Ints = self.weights @ matrix
        return load

    def held_of_groups(self, matrix: Mask) -> Ints:
        """Return how many experts of each group a client holds, shape (C, G)."""
        counts = [
            matrix[:, self.groups == group].sum(axis=1, dtype=np.int64)
            for group in range(len(self.labels))
        ]
        return np.stack(counts, axis=1) if counts else np.zeros((len(matrix), 0), int)

    def value(self, matrix: Mask) -> int:
        """Return the integer objective."""
        return int(self.gain[matrix].sum())

    def violation(self, matrix: Mask) -> Violation:
        """Return by how much ``matrix`` misses bounds and groups."""
        load = self.load(matrix)
        return Violation(
            short=np.maximum(self.lower - load, 0),
            over=np.maximum(load - self.upper, 0),
            groups=self.held_of_groups(matrix) == 0,
        )
