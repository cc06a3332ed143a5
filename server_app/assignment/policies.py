"""Assignment policies that need no solver: random, greedy and round-robin.

FLEX-MoE's baselines (docs/methods.md, section 1). They respect a client's budget and
give it an expert of every layer, nothing else: load bounds belong to
:func:`server_app.assignment.solve`. Pure functions from arrays to a (C, E) boolean
matrix whose row c holds ``min(capacity[c], E)`` experts. With several ``layers``, E
counts the experts of all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server_app.assignment.expert_layers import ExpertLayers, covering
from server_app.assignment.validation import ProblemError, whole_vector

__all__ = ["greedy_top_k", "random_k", "round_robin"]


def random_k(
    capacity: ArrayLike,
    num_experts: int,
    rng: np.random.Generator,
    layers: ExpertLayers | None = None,
) -> NDArray[np.bool_]:
    """Give every client a uniformly random set of experts.

    Parameters
    ----------
    capacity : array-like of int, shape (C,)
        Experts each client can hold; more than ``num_experts`` means all of them.
    num_experts : int
        Number of experts E.
    rng : numpy.random.Generator
        Source of randomness; advanced by exactly C * E uniform draws, so a round's
        draw does not depend on the budgets of the round before.
    layers : ExpertLayers, optional
        If there is more than one.

    Returns
    -------
    ndarray of bool, shape (C, E)
        Row c holds ``min(capacity[c], E)`` experts.

    Raises
    ------
    ValueError
        If a capacity is negative or not whole; the message names the client.
    """
    budget = whole_vector("capacity", capacity, "client")
    return _top_k(rng.random((budget.size, num_experts)), budget, layers)


def greedy_top_k(
    fitness: ArrayLike, capacity: ArrayLike, layers: ExpertLayers | None = None
) -> NDArray[np.bool_]:
    """Give every client the experts that fit it best, whatever the load.

    Parameters
    ----------
    fitness : array-like of float, shape (C, E)
        Fitness of each (client, expert) pair, dimensionless.
    capacity : array-like of int, shape (C,)
        Experts each client can hold.
    layers : ExpertLayers, optional
        If there is more than one.

    Returns
    -------
    ndarray of bool, shape (C, E)
        Row c holds its ``min(capacity[c], E)`` fittest experts; of equally fit
        experts the one with the lower index.

    Raises
    ------
    ValueError
        If a capacity is negative or not whole, or the shapes disagree.
    """
    scores = np.asarray(fitness, dtype=np.float64)
    budget = whole_vector("capacity", capacity, "client")
    if scores.ndim != 2 or scores.shape[0] != budget.size:
        raise ProblemError(
            f"fitness has shape {scores.shape}: expected ({budget.size}, E), "
            "one row per capacity"
        )
    return _top_k(scores, budget, layers)


def round_robin(
    capacity: ArrayLike,
    num_experts: int,
    round_number: int,
    layers: ExpertLayers | None = None,
) -> NDArray[np.bool_]:
    """Lay the clients' budgets end to end around the ring of experts.

    Client c takes consecutive experts starting where client c - 1 stopped, so loads
    within a round differ by at most one; the ring turns by one expert per round, so
    after E rounds with the same clients every pair has met equally often. Each layer
    has a ring of its own, and a client takes as many experts of each.

    Parameters
    ----------
    capacity : array-like of int, shape (C,)
        Experts each client can hold.
    num_experts : int
        Number of experts E.
    round_number : int
        Round t; rounds t and t + E give the same matrix.
    layers : ExpertLayers, optional
        If there is more than one.

    Returns
    -------
    ndarray of bool, shape (C, E)
        Row c holds ``min(capacity[c], E)`` experts.

    Raises
    ------
    ValueError
        If a capacity is negative or not whole; the message names the client.
    """
    if layers is not None and layers.num_layers > 1:
        each = np.asarray(capacity, dtype=np.int64) // layers.num_layers
        ring = round_robin(each, layers.num_experts, round_number)
        return np.tile(ring, (1, layers.num_layers))
    budget = np.minimum(whole_vector("capacity", capacity, "client"), num_experts)
    start = np.cumsum(budget) - budget + round_number
    position = (np.arange(num_experts)[None, :] - start[:, None]) % num_experts
    held: NDArray[np.bool_] = position < budget[:, None]
    return held


def _top_k(
    scores: NDArray[np.float64],
    budget: NDArray[np.int64],
    layers: ExpertLayers | None,
) -> NDArray[np.bool_]:
    """Mark the ``budget[c]`` highest scores of each row, low index first on ties."""
    order = np.argsort(-scores, axis=1, kind="stable")
    held = np.zeros(scores.shape, dtype=np.bool_)
    taken = np.arange(scores.shape[1])[None, :] < budget[:, None]
    np.put_along_axis(held, order, taken, axis=1)
    return held if layers is None else covering(held, scores, budget, layers)
