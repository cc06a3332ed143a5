"""In words: which bounds an assignment does not meet, and by how much.

Budgets and forbidden pairs are physical and always hold. Load bounds and groups give
way where they conflict. How far is the solvers' business: least total violation first,
then fitness; one unit is one placement, or the mean client weight for weighted loads.
"""

from __future__ import annotations

import numpy as np

from server_app.assignment.integers import IntegerProblem, Mask

__all__ = ["relaxations"]

#: Lines about clients before they are cut: a fleet has many.
_MOST_LINES = 8


def relaxations(problem: IntegerProblem, matrix: Mask) -> tuple[str, ...]:
    """Say in one line per bound what a matrix does not meet.

    Parameters
    ----------
    problem : IntegerProblem
        The problem.
    matrix : ndarray of bool, shape (C, E)
        Who holds what.

    Returns
    -------
    tuple of str
        Empty when every bound holds.
    """
    missed = problem.violation(matrix)
    load = problem.load(matrix) * problem.quantum
    lines = []
    for name, amount, sign in (("lower", missed.short, 1), ("upper", missed.over, -1)):
        for expert in np.flatnonzero(amount).tolist():
            by = amount[expert] * problem.quantum
            lines.append(
                f"{name} of expert {expert} missed by {by:g}: load {load[expert]:g}, "
                f"wanted {load[expert] + sign * by:g}"
            )
    without = np.argwhere(missed.groups).tolist()
    lines += [
        f"client {client} holds no expert of group {problem.labels[group]}"
        for client, group in without[:_MOST_LINES]
    ]
    if len(without) > _MOST_LINES:
        lines.append(f"... and {len(without) - _MOST_LINES} more like this")
    return tuple(lines)
