"""An instance as a list of integer rows: what CP-SAT and HiGHS are both told.

Variables 0 .. n-1 are the free pairs, the rest are unit steps that carry the convex
load penalty. A row with a `worth` may be broken at that price per unit when bounds are
relaxed; a row without is physical (a budget, an exclusion) and never broken.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.instance import Instance

__all__ = ["Row", "Statement", "state"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """``low <= sum(coefficients * variables) <= high``.

    Parameters
    ----------
    variables, coefficients : list of int
        The sum; both of the same length.
    low, high : int or None
        Bounds; None for none.
    worth : int
        Violation counted per unit missed when relaxed; 0 if it cannot be relaxed.
    """

    variables: list[int]
    coefficients: list[int]
    low: int | None = None
    high: int | None = None
    worth: int = 0

    @property
    def reach(self) -> tuple[int, int]:
        """Least and greatest value of the sum over binary variables."""
        least = sum(min(c, 0) for c in self.coefficients)
        return least, sum(max(c, 0) for c in self.coefficients)


@dataclass(kw_only=True)
class Statement:
    """Rows and integer objective of an instance, to be maximised.

    Parameters
    ----------
    clients, experts : ndarray of int, shape (n,)
        The pair each of the first n variables stands for.
    gains : list of int
        Objective coefficient of every binary variable, pairs first.
    constant : int
        Objective of what is settled: pins, penalty at the lowest load.
    rows : list of Row
        The constraints.
    """

    clients: NDArray[np.intp]
    experts: NDArray[np.intp]
    gains: list[int]
    constant: int
    rows: list[Row] = field(default_factory=list)

    def steps(self, prices: list[int]) -> list[int]:
        """Add one binary variable per price and return the new variables."""
        first = len(self.gains)
        self.gains.extend(-price for price in prices)
        return list(range(first, len(self.gains)))


def state(instance: Instance, *, soft: bool) -> Statement:
    """Write an instance down as rows.

    Parameters
    ----------
    instance : Instance
        The integer problem.
    soft : bool
        Whether load bounds may be broken: the penalty then covers every load, not only
        those within the band.

    Returns
    -------
    Statement
        One row per budget, exclusion, floor, group and bound that can bind.
    """
    clients, experts = np.nonzero(instance.free)
    statement = Statement(
        clients=clients,
        experts=experts,
        gains=instance.gain[clients, experts].tolist(),
        constant=int(instance.gain[instance.fixed].sum()),
    )
    number = np.full(instance.free.shape, -1)
    number[clients, experts] = np.arange(len(clients))
    for client in range(len(instance.room)):
        _state_client(instance, statement, client, number[client])
    for expert in range(len(instance.sizes)):
        _state_expert(instance, statement, expert, number[:, expert], soft=soft)
    return statement


def _state_client(
    instance: Instance, statement: Statement, client: int, number: NDArray[np.intp]
) -> None:
    held = np.flatnonzero(number >= 0)
    pairs = number[held].tolist()
    ones = [1] * len(pairs)
    sizes = instance.sizes[held].tolist()
    room, floor = int(instance.room[client]), int(instance.floor[client])
    unit = instance.placement_unit
    if sum(sizes) > room:
        row = Row(variables=pairs, coefficients=sizes, high=room)
        statement.rows.append(row)
    if floor > 0:
        row = Row(variables=pairs, coefficients=ones, low=floor, worth=unit)
        statement.rows.append(row)
    for members in instance.exclusive:
        rivals = [int(number[e]) for e in members if number[e] >= 0]
        if len(rivals) > 1:
            row = Row(variables=rivals, coefficients=[1] * len(rivals), high=1)
            statement.rows.append(row)
    for group in np.flatnonzero(instance.needs[client]).tolist():
        inside = number[held[instance.groups[held] == group]].tolist()
        row = Row(variables=inside, coefficients=[1] * len(inside), low=1, worth=unit)
        statement.rows.append(row)


def _state_expert(
    instance: Instance,
    statement: Statement,
    expert: int,
    number: NDArray[np.intp],
    *,
    soft: bool,
) -> None:
    holders = np.flatnonzero(number >= 0)
    pairs = number[holders].tolist()
    weights = instance.weights[holders].tolist()
    low, high = int(instance.lower[expert]), int(instance.upper[expert])
    need, most = int(instance.holders[expert]), sum(weights)
    if low > 0 or high < most:
        row = Row(
            variables=pairs,
            coefficients=weights,
            low=low if low > 0 else None,
            high=high if high < most else None,
            worth=1,
        )
        statement.rows.append(row)
    if need > 0:
        ones = [1] * len(pairs)
        unit = instance.placement_unit
        row = Row(variables=pairs, coefficients=ones, low=need, worth=unit)
        statement.rows.append(row)
    if not instance.penalty:
        return
    span = (0, most) if soft else (min(low, most), max(min(high, most), low))
    if instance.penalty.step is None:
        _state_counted_penalty(instance, statement, expert, pairs, span)
    else:
        _state_stepped_penalty(instance, statement, expert, pairs, weights, span)


def _state_counted_penalty(
    instance: Instance,
    statement: Statement,
    expert: int,
    pairs: list[int],
    span: tuple[int, int],
) -> None:
    """``load = low + steps``: the penalty is convex, so cheap steps come first."""
    low, high = span
    pins = int(instance.fixed_load[expert])
    prices = instance.penalty.marginal(expert, np.arange(low, high) + pins)
    steps = statement.steps(prices.tolist())
    statement.constant -= instance.penalty.of(expert, low + pins)
    coefficients = [1] * len(pairs) + [-1] * len(steps)
    row = Row(variables=pairs + steps, coefficients=coefficients, low=low, high=low)
    statement.rows.append(row)


def _state_stepped_penalty(
    instance: Instance,
    statement: Statement,
    expert: int,
    pairs: list[int],
    weights: list[int],
    span: tuple[int, int],
) -> None:
    """``-step * steps <= load - target <= step * steps``."""
    step = instance.penalty.step or 1
    pins = int(instance.fixed_load[expert])
    first, last = (end - pins for end in instance.penalty.plateau(expert))
    most = max(first - span[0], span[1] - last, 0)
    count = -(-most // step)
    costs = instance.penalty.steps_cost(np.arange(count + 1))
    steps = statement.steps(np.diff(costs).tolist())
    for sign in (1, -1):
        row = Row(
            variables=pairs + steps,
            coefficients=weights + [sign * step] * count,
            low=first if sign > 0 else None,
            high=None if sign > 0 else last,
        )
        statement.rows.append(row)
