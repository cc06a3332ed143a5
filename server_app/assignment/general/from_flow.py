"""A flow's answer to byte sizes and weighted loads, for the exact solver to start from.

Flow knows neither, so it is asked with every expert of the mean size and every client
of the mean weight. What does not fit is dropped, and what room is left is filled by
flows that give each client one expert more, of those that fit. Budgets hold; bounds may
be missed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from server_app.assignment.flow.exact import solve_flow
from server_app.assignment.integers import IntegerProblem, Ints, Mask

__all__ = ["assignment_by_counts"]


def assignment_by_counts(problem: IntegerProblem) -> Mask:
    """Return an assignment within the budgets, about as good as counting makes it.

    Parameters
    ----------
    problem : IntegerProblem
        Any problem; with ``is_flow`` the answer is optimal.

    Returns
    -------
    ndarray of bool, shape (C, E)
    """
    mean = float(problem.weights.mean()) or 1.0
    counted = replace(
        problem,
        sizes=np.ones_like(problem.sizes),
        capacity=np.rint(problem.capacity / problem.sizes.mean()).astype(np.int64),
        weights=np.ones_like(problem.weights),
        lower=np.ceil(problem.lower / mean).astype(np.int64),
        upper=np.floor(problem.upper / mean).astype(np.int64),
    )
    held, room = _within(problem, solve_flow(counted))
    while True:
        load = counted.load(held)
        fits = problem.allowed & ~held & (problem.sizes <= room[:, None])
        one_more = replace(
            counted,
            allowed=fits,
            capacity=np.ones_like(room),
            lower=np.maximum(counted.lower - load, 0),
            upper=np.maximum(counted.upper - load, 0),
            groups=np.full_like(problem.groups, -1),
            labels=problem.labels[:0],
        )
        more = solve_flow(one_more)
        if not more.any():
            return held
        held |= more
        room -= more @ problem.sizes


def _within(problem: IntegerProblem, held: Mask) -> tuple[Mask, Ints]:
    """Return what fits, each client's fittest first, and the budgets left."""
    fittest = np.argsort(np.where(held, -problem.gain, 1), axis=1, kind="stable")
    kept, room = np.zeros_like(held), problem.capacity.copy()
    rows = np.arange(len(held))
    for expert in fittest.T:
        fits = held[rows, expert] & (problem.sizes[expert] <= room)
        kept[rows, expert] = fits
        room -= fits * problem.sizes[expert]
    return kept, room
