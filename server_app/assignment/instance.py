"""The problem in the integers that every solver shares.

Pins are no longer in it: what is pinned has been taken out of budgets, bands and
floors, so that no solver needs to know about pins. How an `AssignmentProblem` becomes
an `Instance` is in :mod:`server_app.assignment.rounding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.penalty import LoadPenalty

__all__ = ["Instance", "Ints", "Mask", "Violation"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Violation:
    """By how much a matrix misses each soft bound, in whole units of the instance.

    Parameters
    ----------
    short, over : ndarray of int, shape (E,)
        Load quanta below ``lower`` and above ``upper``.
    holders : ndarray of int, shape (E,)
        Clients missing below ``min_holders``.
    floor : ndarray of int, shape (C,)
        Experts missing below the client's floor.
    groups : ndarray of bool, shape (C, G)
        Groups of which a client holds nothing.
    """

    short: Ints
    over: Ints
    holders: Ints
    floor: Ints
    groups: Mask

    def total(self, unit: int) -> int:
        """Return the summed violation; a missing placement counts ``unit`` quanta."""
        placements = self.holders.sum() + self.floor.sum() + self.groups.sum()
        return int(self.short.sum() + self.over.sum() + unit * placements)


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """What is left to decide once pins are placed, in integers.

    Parameters
    ----------
    gain : ndarray of int, shape (C, E)
        Fitness minus switching cost, times ``scale``.
    scale : float
        Integer units per unit of fitness.
    free : ndarray of bool, shape (C, E)
        Pairs a solver decides; everything else is settled.
    fixed : ndarray of bool, shape (C, E)
        Pins in force.
    sizes : ndarray of int, shape (E,)
        Budget each expert takes; all ones for a count budget.
    room : ndarray of int, shape (C,)
        Budget left beside the pins.
    weights : ndarray of int, shape (C,)
        Load quanta a client adds to an expert; all ones for counted loads.
    quantum : float
        Load per quantum.
    lower, upper : ndarray of int, shape (E,)
        Band still to be met by free pairs, in load quanta. May be crossed or negative.
    holders : ndarray of int, shape (E,)
        Holders still required; zero for counted loads, where ``lower`` says it.
    floor : ndarray of int, shape (C,)
        Experts still required by each client.
    exclusive : tuple of tuples of int
        Sets of which a client may hold one.
    groups : ndarray of int, shape (E,)
        Dense group number of each expert; -1 when there are no groups.
    labels : ndarray of int, shape (G,)
        The caller's label of each group number.
    needs : ndarray of bool, shape (C, G)
        Groups of which a client still needs an expert.
    penalty : LoadPenalty
        Penalty of the whole load, pins included.
    fixed_load : ndarray of int, shape (E,)
        Load of the pins.
    notes : tuple of str
        Pins that had to be dropped.
    """

    gain: Ints
    scale: float
    free: Mask
    fixed: Mask
    sizes: Ints
    room: Ints
    weights: Ints
    quantum: float
    lower: Ints
    upper: Ints
    holders: Ints
    floor: Ints
    exclusive: tuple[tuple[int, ...], ...]
    groups: Ints
    labels: Ints
    needs: Mask
    penalty: LoadPenalty
    fixed_load: Ints
    notes: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        """Whether every placement adds one unit of load."""
        return self.penalty.step is None and bool((self.weights == 1).all())

    @property
    def is_flow(self) -> bool:
        """Whether the problem is a transportation problem, so that flow is exact."""
        unit = bool((self.sizes == 1).all())
        side = self.exclusive or self.needs.any() or self.holders.any()
        return unit and self.counted and not side

    @property
    def placement_unit(self) -> int:
        """Load quanta that weigh as much as one missing placement."""
        return max(1, round(float(self.weights.mean())))

    @cached_property
    def quota(self) -> Ints:
        """Most free experts each client of a count budget can take, shape (C,)."""
        return np.minimum(self.room, self.free.sum(axis=1))

    @cached_property
    def steepest_gain(self) -> int:
        """Most that one placement can gain or save, at least 1."""
        steepest = int(np.abs(self.gain).max())
        if self.penalty:
            ends = np.array([[0], [len(self.room)]])
            every = np.arange(len(self.sizes))
            slopes = self.penalty.marginal(every, ends)
            steepest += int(np.abs(slopes).max())
        return max(steepest, 1)

    @property
    def violation_price(self) -> int:
        """Integer fitness above what one unit of violation can ever gain.

        An exchange passes each expert at most once, so no chain of exchanges gains more
        than this. For flows only: elsewhere one unit may be worth more.
        """
        return (2 * len(self.sizes) + 4) * self.steepest_gain

    def load_steps(self, experts: Ints, loads: Ints, steep: int | None = None) -> Ints:
        """Return the cost of raising counted loads of free pairs by one.

        Outside the band every step costs, or saves, ``steep``: `violation_price`
        unless given.
        """
        price = self.violation_price if steep is None else steep
        above = (loads >= self.upper[experts]).astype(np.int64)
        below = (loads < self.lower[experts]).astype(np.int64)
        cost: Ints = price * (above - below)
        if self.penalty:
            whole = loads + self.fixed_load[experts]
            cost = cost + self.penalty.marginal(experts, whole)
        return cost

    def load(self, matrix: Mask) -> Ints:
        """Return the load quanta of each expert, shape (E,), of the free pairs."""
        if self.counted:
            counts: Ints = matrix.sum(axis=0, dtype=np.int64)
            return counts
        total: Ints = (self.weights[:, None] * matrix).sum(axis=0)
        return total

    def value(self, matrix: Mask) -> int:
        """Return the integer objective of free pairs ``matrix`` and pins together."""
        placed = matrix | self.fixed
        gain = int(self.gain[placed].sum())
        return gain - self.penalty.total(self.load(matrix) + self.fixed_load)

    def violation(self, matrix: Mask) -> Violation:
        """Return by how much free pairs ``matrix`` miss the soft bounds."""
        load = self.load(matrix)
        count = matrix.sum(axis=0, dtype=np.int64)
        held = matrix.sum(axis=1, dtype=np.int64)
        covered = np.zeros(self.needs.shape, dtype=np.bool_)
        for group in range(self.needs.shape[1]):
            covered[:, group] = matrix[:, self.groups == group].any(axis=1)
        return Violation(
            short=np.maximum(self.lower - load, 0),
            over=np.maximum(load - self.upper, 0),
            holders=np.maximum(self.holders - count, 0),
            floor=np.maximum(self.floor - held, 0),
            groups=self.needs & ~covered,
        )

    def is_valid(self, matrix: Mask) -> bool:
        """Return whether free pairs ``matrix`` keep budgets, bans and exclusions."""
        if (matrix & ~self.free).any():
            return False
        used = matrix.sum(axis=1) if self.is_flow else matrix @ self.sizes
        if (used > self.room).any():
            return False
        return all(
            (matrix[:, members].sum(axis=1) <= 1).all() for members in self.exclusive
        )
