"""Exact min-cost flow where sizes and loads are counts, with groups or without.

The network: clients supply their budget, an arc of capacity one per allowed pair leads
to an expert, experts drain into a sink through arcs of rising price (the band), and
what a client leaves unused goes to the sink directly. Where clients need an expert of
each group, e.g. of each layer, a node per client and group stands between a client and
its experts: the first unit that enters it earns the price of a missed bound, further
ones nothing. All of it is a network matrix, so the flow is integral and exact.

Bounds are soft in the network itself, so that a flow always exists: OR-Tools crashes
when flows are read after an infeasible solve. A bound is first priced at a few gains;
an answer that breaks none at that price would break none at any higher. Only if one is
broken is the network solved again at `IntegerProblem.violation_price`, which is more
than any chain of exchanges can gain, but costs the solver more rounds of scaling.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import min_cost_flow

from server_app.assignment.integers import IntegerProblem, Ints, Mask

__all__ = ["solve_flow"]

#: First price of a broken bound, in units of the largest gain.
_GENTLE = 4

_Arcs = tuple[NDArray[np.intp], NDArray[np.intp], Ints, Ints]
"""Tails, heads, capacities and unit costs."""


def solve_flow(problem: IntegerProblem, among: Mask | None = None) -> Mask:
    """Return the best assignment of counted experts.

    Parameters
    ----------
    problem : IntegerProblem
        One with ``is_flow``.
    among : ndarray of bool, shape (C, E), optional
        Allowed pairs that get an arc; default all. With fewer arcs the answer is
        optimal among them only.

    Returns
    -------
    ndarray of bool, shape (C, E)
        Who holds what: least violation first, then the highest objective.

    Raises
    ------
    RuntimeError
        If OR-Tools does not solve the network, which always has a solution.
    """
    clients, experts = np.nonzero(problem.allowed if among is None else among)
    highest = problem.violation_price
    for steep in (min(_GENTLE * problem.steepest_gain, highest), highest):
        matrix = _solve_network(problem, clients, experts, steep)
        if not problem.violation(matrix).total(1):
            break
    return matrix


def _solve_network(
    problem: IntegerProblem,
    clients: NDArray[np.intp],
    experts: NDArray[np.intp],
    steep: int,
) -> Mask:
    """Solve with broken bounds at ``steep``, on arcs for these pairs."""
    num_clients, num_experts = problem.gain.shape
    sink = num_clients + num_experts
    every_client = np.arange(num_clients)
    tails: NDArray[np.intp] = clients
    entries: list[_Arcs] = []
    if len(problem.labels):
        node = sink + 1 + np.arange(num_clients * len(problem.labels))
        node = node.reshape(num_clients, -1)
        tails = node[clients, problem.groups[experts]]
        entries = _group_arcs(node, num_experts, steep)
    arcs = [
        _arcs(tails, num_clients + experts, 1, -problem.gain[clients, experts]),
        _arcs(every_client, sink, problem.quota, 0),
        *_expert_arcs(problem, steep),
        *entries,
    ]
    tail, head, capacity, cost = map(np.concatenate, zip(*arcs, strict=True))
    # An arc without capacity still counts for the solver's cost scaling.
    used = capacity > 0

    network = min_cost_flow.SimpleMinCostFlow()
    network.add_arcs_with_capacity_and_unit_cost(
        tail[used].astype(np.int32),
        head[used].astype(np.int32),
        capacity[used].astype(np.int64),
        cost[used].astype(np.int64),
    )
    network.set_nodes_supplies(
        np.append(every_client, sink).astype(np.int32),
        np.append(problem.quota, -problem.quota.sum()).astype(np.int64),
    )
    status = network.solve()
    if status != network.OPTIMAL:
        raise RuntimeError(f"min-cost flow ended with {status}: this is a bug")
    flows = np.asarray(network.flows(np.arange(len(clients), dtype=np.int32)))
    matrix = np.zeros(problem.gain.shape, dtype=np.bool_)
    matrix[clients[flows > 0], experts[flows > 0]] = True
    return matrix


def _expert_arcs(problem: IntegerProblem, steep: int) -> list[_Arcs]:
    """Return arcs from experts to the sink: below, within and above the band."""
    clients, experts = problem.gain.shape
    every = np.arange(experts)
    low = np.clip(np.minimum(problem.lower, problem.upper), 0, clients)
    high = np.clip(np.maximum(problem.lower, problem.upper), 0, clients)
    return [
        _arcs(
            clients + every,
            clients + experts,
            end - start,
            problem.load_steps(every, start, steep),
        )
        for start, end in pairwise([np.zeros_like(low), low, high, clients])
    ]


def _group_arcs(node: NDArray[np.intp], experts: int, steep: int) -> list[_Arcs]:
    """Return arcs from clients to their group nodes, shape (C, G)."""
    client = np.repeat(np.arange(len(node)), node.shape[1])
    return [
        _arcs(client, node.ravel(), 1, -steep),
        _arcs(client, node.ravel(), experts - 1, 0),
    ]


def _arcs(
    tail: NDArray[np.intp],
    head: NDArray[np.intp] | int,
    capacity: Ints | int,
    cost: Ints | int,
) -> _Arcs:
    """Return arcs, repeating what is the same for all."""
    tails, heads, capacities, costs = np.broadcast_arrays(tail, head, capacity, cost)
    return tails, heads, capacities, costs
