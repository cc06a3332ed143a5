"""Exact min-cost flow for transportation instances (unit sizes, counted loads).

The network: clients supply their budget, an arc of capacity one per free pair leads to
an expert, experts drain into a sink through arcs of rising price (the band, the convex
penalty), and what a client leaves unused goes to the sink directly. Its matrix is
totally unimodular, so the flow is integral and exact.

Bounds are soft in the network itself, so that a flow always exists: OR-Tools crashes
when flows are read after an infeasible solve. A bound is first priced at a few gains;
an answer that breaks none at that price would break none at any higher. Only if one is
broken is the network solved again at `Instance.violation_price`, which is more than any
chain of exchanges can gain, but costs the solver more rounds of scaling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import min_cost_flow

from server_app.assignment.instance import Instance, Ints, Mask

__all__ = ["solve_flow"]

#: With a penalty, unit arcs are laid up to this multiple of the mean load at first.
_FIRST_REACH = 2
#: First price of a broken bound, in units of the largest gain.
_GENTLE = 4

_Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


def solve_flow(instance: Instance, among: Mask | None = None) -> Mask:
    """Return the best assignment of a transportation instance.

    Parameters
    ----------
    instance : Instance
        A transportation problem (``instance.is_flow``).
    among : ndarray of bool, shape (C, E), optional
        Free pairs that get an arc; default all. With fewer arcs the answer is optimal
        among them only.

    Returns
    -------
    ndarray of bool, shape (C, E)
        Free pairs held: least violation first, then the highest objective.

    Raises
    ------
    RuntimeError
        If OR-Tools does not solve the network, which always has a solution.
    """
    buyers, goods = np.nonzero(instance.free if among is None else among)
    gentle = min(_GENTLE * instance.steepest_gain, instance.violation_price)
    matrix = _solve_priced(instance, (buyers, goods), gentle)
    if gentle == instance.violation_price or not instance.violation(matrix).total(1):
        return matrix
    return _solve_priced(instance, (buyers, goods), instance.violation_price)


def _solve_priced(instance: Instance, pairs: _Pairs, steep: int) -> Mask:
    """Solve with broken bounds at ``steep``, laying unit arcs as far as needed."""
    clients = len(instance.room)
    reach = clients
    if instance.penalty:
        mean = int(instance.quota.sum()) // len(instance.sizes)
        reach = _FIRST_REACH * (mean + int(instance.lower.max(initial=0)) + 1)
    while True:
        matrix = _solve_network(instance, pairs, min(reach, clients), steep)
        # Beyond its reach an expert's price no longer rises: too cheap to be trusted.
        if reach >= clients or int(instance.load(matrix).max()) <= reach:
            return matrix
        reach *= 2


def _solve_network(instance: Instance, pairs: _Pairs, reach: int, steep: int) -> Mask:
    clients, experts = instance.gain.shape
    sink = clients + experts
    every_client, every_expert = np.arange(clients), np.arange(experts)
    quota = instance.quota
    due = np.minimum(instance.floor, quota)
    seller, room, price = _expert_arcs(instance, reach, steep)

    tails = [pairs[0], every_client, every_client, clients + seller]
    heads = [clients + pairs[1], np.full(2 * clients + len(seller), sink)]
    capacities = [np.ones(len(pairs[0])), quota - due, due, room]
    costs = [
        -instance.gain[pairs],
        np.zeros(clients, dtype=np.int64),
        np.full(clients, steep),
        price,
    ]
    supplies = [quota, np.zeros_like(every_expert), np.array([-quota.sum()])]
    tail, head, capacity, cost = map(np.concatenate, (tails, heads, capacities, costs))
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
        np.arange(sink + 1, dtype=np.int32), np.concatenate(supplies).astype(np.int64)
    )
    status = network.solve()
    if status != network.OPTIMAL:
        raise RuntimeError(f"min-cost flow ended with {status}: this is a bug")
    flows = np.asarray(network.flows(np.arange(len(pairs[0]), dtype=np.int32)))
    held = flows > 0
    matrix = np.zeros((clients, experts), dtype=np.bool_)
    matrix[pairs[0][held], pairs[1][held]] = True
    return matrix


def _expert_arcs(instance: Instance, reach: int, steep: int) -> tuple[Ints, Ints, Ints]:
    """Return expert, capacity and unit cost of the arcs from experts to the sink."""
    clients, experts = instance.gain.shape
    every = np.arange(experts)
    if instance.penalty:
        loads = np.tile(np.arange(reach + 1), (experts, 1))
        seller = np.repeat(every, reach + 1)
        price = instance.load_steps(seller, loads.ravel(), steep)
        room = np.ones_like(price)
        room[reach :: reach + 1] = clients
        return seller, room, price
    low = np.clip(np.minimum(instance.lower, instance.upper), 0, clients)
    high = np.clip(np.maximum(instance.lower, instance.upper), 0, clients)
    room = np.concatenate([low, high - low, clients - high])
    starts = np.concatenate([np.zeros_like(low), low, high])
    seller = np.tile(every, 3)
    return seller, room, instance.load_steps(seller, starts, steep)
