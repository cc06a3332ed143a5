"""The assignment with an expert of every layer for every client, solved and repaired.

What a strategy asks for is fitness, budgets and bounds; layers are this module's.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server_app.assignment.engine import solve
from server_app.assignment.expert_layers import ExpertLayers, covering
from server_app.assignment.problem import AssignmentProblem
from server_app.assignment.solution import Assignment
from server_app.load import Bounds

__all__ = ["solve_every_layer"]


def solve_every_layer(
    fitness: NDArray[np.float64],
    capacity: ArrayLike,
    bounds: Bounds,
    layers: ExpertLayers,
    closed: NDArray[np.bool_] | None = None,
    **solving: Any,
) -> Assignment:
    """Return the best assignment in which whoever holds anything serves every layer.

    Parameters
    ----------
    fitness : ndarray, shape (C, L * E)
    capacity : array_like of int, shape (C,)
    bounds : Bounds
    layers : ExpertLayers
    closed : ndarray of bool, shape (L * E,), optional
        Experts that nobody is to hold; at least one of each layer is not.
    **solving
        ``solver``, ``time_limit`` and ``seed`` of :func:`solve`.

    Returns
    -------
    Assignment
        The solver's, its matrix repaired; ``relaxed`` says of how many clients.
    """
    forbidden = None
    if closed is not None and closed.any():
        forbidden = np.broadcast_to(closed, fitness.shape)
        fitness = np.where(closed, -1.0, fitness)  # no repair takes one of them
    several = layers.num_layers > 1
    answer = solve(
        AssignmentProblem(
            fitness,
            capacity,
            bounds.lower,
            bounds.upper,
            groups=layers.of_experts if several else None,
            forbidden=forbidden,
        ),
        **solving,
    )
    if not several:
        return answer
    # The solver weighs a layer without an expert like any bound that conflicts; for a
    # client it is the end. Whoever could hold one of each shall.
    wanted = answer.matrix.copy()
    empty = ~wanted.any(axis=1)
    wanted[empty, fitness[empty].argmax(axis=1)] = True
    held = covering(wanted, fitness, capacity, layers)
    repaired = int((held != answer.matrix).any(axis=1).sum())
    if not repaired:
        return answer
    note = f"{repaired} clients got an expert of a layer they were without"
    return replace(answer, matrix=held, relaxed=(*answer.relaxed, note))
