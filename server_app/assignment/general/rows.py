"""The constraints of a problem as integer rows: what CP-SAT and HiGHS are both told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from server_app.assignment.integers import IntegerProblem, Ints

__all__ = ["Row", "rows_of"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """``low <= sum(coefficients * variables) <= high``.

    Parameters
    ----------
    variables, coefficients : ndarray of int, shape (n,)
        The sum, over numbers of allowed pairs in the order of ``np.nonzero(allowed)``.
    low, high : int or None
        Bounds; None for none.
    price : int
        Violation counted per unit missed when relaxed; 0 if it cannot be relaxed.
    """

    variables: Ints
    coefficients: Ints
    low: int | None = None
    high: int | None = None
    price: int = 0


def rows_of(problem: IntegerProblem) -> Iterator[Row]:
    """Yield a row per budget, group and load bound that can bind."""
    number = np.cumsum(problem.allowed).reshape(problem.allowed.shape) - 1
    for client, able in enumerate(problem.allowed):
        pairs, sizes = number[client, able], problem.sizes[able]
        room = int(problem.capacity[client])
        if sizes.sum() > room:
            yield Row(variables=pairs, coefficients=sizes, high=room)
        for group in range(len(problem.labels)):
            inside = pairs[problem.groups[able] == group]
            ones, price = np.ones_like(inside), problem.placement
            yield Row(variables=inside, coefficients=ones, low=1, price=price)
    for expert, able in enumerate(problem.allowed.T):
        pairs, weights = number[able, expert], problem.weights[able]
        low, high = int(problem.lower[expert]), int(problem.upper[expert])
        if low > 0:
            yield Row(variables=pairs, coefficients=weights, low=low, price=1)
        if high < weights.sum():
            yield Row(variables=pairs, coefficients=weights, high=high, price=1)
