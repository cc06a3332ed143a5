"""Proof that a transportation assignment is optimal, whoever found it.

A matrix is optimal exactly when the residual graph of the flow has no cycle of negative
cost. Clients can be contracted, because a unit only passes through one from an expert
it gives up to an expert it takes: what is left is a dense graph on E experts and the
sink, small at any fleet size. Its arcs cover the whole problem, not only the exchange
of experts::

    e  -> e'    some client gives up e for e'             min_c Q_ce - Q_ce'
    e  -> sink  some client drops e, or the load of e rises within its band
    sink -> e   some client with budget left takes e, or the load of e falls

Arcs that leave the band or go below a floor stay in the graph at `violation_price`, so
the proof holds for relaxed problems as well. Shortest distances in that graph are
prices for the experts, and `dual_bound` turns any prices whatever into an upper bound
(weak duality). A matrix is certified only if its value equals that bound, in integers:
the proof does not depend on how matrix or prices were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.instance import Instance, Ints, Mask

__all__ = ["Certificate", "certify", "dual_bound", "expert_prices", "reduced_gain"]

#: No arc. Far above every path length, and safe to add twice in int64.
_NO_ARC = 1 << 61
#: Rows of the gain matrix looked at together: bounds the memory of a (C, E) pass.
_BLOCK = 1 << 14


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """Prices of the experts, and what they prove about a matrix.

    Parameters
    ----------
    bound : int
        No matrix with as little violation has a higher integer objective.
    optimal : bool
        Whether the matrix attains the bound.
    prices : ndarray of int, shape (E,)
        What one unit of load of each expert is worth, in integer fitness.
    """

    bound: int
    optimal: bool
    prices: Ints


def certify(
    instance: Instance, matrix: Mask, prices: Ints | None = None
) -> Certificate:
    """Prove a matrix optimal, or bound how far it may be from it.

    Parameters
    ----------
    instance : Instance
        A transportation problem (``instance.is_flow``).
    matrix : ndarray of bool, shape (C, E)
        Free pairs held; must be valid.
    prices : ndarray of int, shape (E,), optional
        Prices to judge it by; default those of its residual graph.

    Returns
    -------
    Certificate
        ``optimal`` is true if and only if the matrix has the least violation and, at
        that violation, the highest objective.
    """
    if prices is None:
        prices, _ = expert_prices(instance, matrix)
    bound = dual_bound(instance, prices)
    missed = instance.violation_price * instance.violation(matrix).total(1)
    optimal = instance.value(matrix) - missed == bound
    return Certificate(bound=bound + missed, optimal=optimal, prices=prices)


def expert_prices(
    instance: Instance, matrix: Mask, among: Mask | None = None
) -> tuple[Ints, bool]:
    """Return prices at which nobody would change anything, if there are such prices.

    Parameters
    ----------
    instance : Instance
        A transportation problem.
    matrix : ndarray of bool, shape (C, E)
        Free pairs held.
    among : ndarray of bool, shape (C, E), optional
        Pairs to consider; default all free pairs.

    Returns
    -------
    ndarray of int, shape (E,)
        Prices; the last iterate when none are exact.
    bool
        Whether the residual graph has no negative cycle.
    """
    cost = _exchange_costs(instance, matrix, instance.free if among is None else among)
    distance = np.zeros(len(cost), dtype=np.int64)
    stable = False
    for _ in range(len(cost) + 1):
        closer = np.minimum(distance, (distance[:, None] + cost).min(axis=0))
        stable = bool((closer == distance).all())
        if stable:
            break
        distance = closer
    return distance[-1] - distance[:-1], stable


def dual_bound(instance: Instance, prices: Ints) -> int:
    """Return the Lagrangian bound: clients buy at ``prices``, experts sell at them.

    Parameters
    ----------
    instance : Instance
        A transportation problem.
    prices : ndarray of int, shape (E,)
        Any prices.

    Returns
    -------
    int
        Upper bound on ``value - violation_price * violation`` of every valid matrix.
    """
    bound = int(instance.gain[instance.fixed].sum())
    quota = instance.quota
    most = int(quota.max(initial=0))
    steep = instance.violation_price
    position = np.arange(most)
    for start in range(0, len(quota), _BLOCK):
        rows = slice(start, start + _BLOCK)
        worth = reduced_gain(instance, prices, rows)
        if 0 < most < worth.shape[1]:
            worth = np.partition(worth, worth.shape[1] - most, axis=1)[:, -most:]
        worth = np.sort(worth, axis=1)[:, ::-1][:, :most]
        # Below its floor a client would pay for one more expert.
        urge = steep * (position < instance.floor[rows, None])
        taken = np.maximum(worth + urge, 0) * (position < quota[rows, None])
        bound += int(taken.sum())
    bound -= steep * int(instance.floor.sum())
    return bound + _best_sales(instance, prices)


def reduced_gain(instance: Instance, prices: Ints, rows: slice) -> Ints:
    """Return gain minus price for some clients; hopeless where the pair is not free."""
    gain = instance.gain[rows] - prices
    gain[~instance.free[rows]] = -_NO_ARC
    return gain


def _best_sales(instance: Instance, prices: Ints) -> int:
    """Return the best of ``price * load`` minus the cost of that load, summed."""
    clients, experts = instance.gain.shape
    low = np.maximum(instance.lower, 0)
    owed = int(low.sum()) + int(np.maximum(-instance.upper, 0).sum())
    total = -instance.violation_price * owed
    every = np.arange(experts)
    if not instance.penalty:
        # The cost of one more only changes at the ends of the band.
        bends = [np.zeros_like(low), low, instance.upper, np.full_like(low, clients)]
        ends = np.sort(np.clip(bends, 0, clients), axis=0)
        for begin, end in pairwise(ends):
            slopes = prices - instance.load_steps(every, begin)
            total += int((np.maximum(slopes, 0) * (end - begin)).sum())
        return total
    loads = np.arange(clients)
    for expert in every.tolist():
        rise = instance.load_steps(np.full(clients, expert), loads)
        total += int(np.maximum(prices[expert] - rise, 0).sum())
        total -= instance.penalty.of(expert, int(instance.fixed_load[expert]))
    return total


def _exchange_costs(instance: Instance, matrix: Mask, among: Mask) -> Ints:
    """Return the arc costs of the residual graph on E experts and the sink."""
    gain, steep = instance.gain, instance.violation_price
    experts = gain.shape[1]
    sink = experts
    cost = np.full((experts + 1, experts + 1), _NO_ARC)
    held = matrix.sum(axis=1)
    drop = gain + (steep * ((held <= instance.floor) & (instance.floor > 0)))[:, None]
    open_gain = np.where(among & ~matrix, gain, -_NO_ARC)
    clients, order = _holders(matrix)
    for expert in range(experts):
        holders = clients[order[expert] : order[expert + 1]]
        if holders.size:
            given_up = gain[holders, expert]
            swaps = given_up[:, None] - open_gain[holders]
            cost[expert, :experts] = swaps.min(axis=0)
            cost[expert, sink] = drop[holders, expert].min()
    buyers = held < instance.quota
    if buyers.any():
        urge = steep * (held < instance.floor)[buyers]
        wish = open_gain[buyers] + urge[:, None]
        cost[sink, :experts] = -wish.max(axis=0)
    load = instance.load(matrix)
    every = np.arange(experts)
    rise = instance.load_steps(every, load)
    rise[load >= len(held)] = _NO_ARC
    fall = -instance.load_steps(every, load - 1)
    fall[load == 0] = _NO_ARC
    cost[:experts, sink] = np.minimum(cost[:experts, sink], rise)
    cost[sink, :experts] = np.minimum(cost[sink, :experts], fall)
    return np.minimum(cost, _NO_ARC)


def _holders(matrix: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return holders sorted by expert, and where each expert's run starts."""
    clients, experts = np.nonzero(matrix)
    order = np.argsort(experts, kind="stable")
    starts = np.searchsorted(experts[order], np.arange(matrix.shape[1] + 1))
    return clients[order], starts
