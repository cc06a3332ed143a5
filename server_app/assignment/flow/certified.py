"""Proof that an assignment of counted experts is optimal, whoever found it.

A matrix is optimal exactly when the residual graph of the flow has no cycle of negative
cost. Clients can be contracted, because a unit only passes through one from an expert
it gives up to an expert it takes: what is left is a dense graph on E experts and the
sink, small at any fleet size. Its arcs cover the whole problem, not only the exchange
of experts::

    e  -> e'    some client gives up e for e'             min_c Q_ce - Q_ce'
    e  -> sink  some client drops e, or the load of e rises within its band
    sink -> e   some client with budget left takes e, or the load of e falls

Arcs that leave the band, or a group without an expert, stay in the graph at
`violation_price`, so the proof holds for relaxed problems as well. Shortest distances
in that graph are prices for the experts, and `dual_bound` turns any prices whatever
into an upper bound (weak duality). A matrix is certified only if its value equals that
bound, in integers: the proof does not depend on how matrix or prices were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.integers import IntegerProblem, Ints, Mask, blocks

__all__ = [
    "Proof",
    "certify",
    "dual_bound",
    "expert_prices",
    "give_and_take",
    "reduced_gain",
    "reward_groups",
]

#: No arc. Far above every path length, and safe to add twice in int64.
_NO_ARC = 1 << 61


@dataclass(frozen=True, kw_only=True, eq=False)
class Proof:
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


def certify(problem: IntegerProblem, matrix: Mask, prices: Ints | None = None) -> Proof:
    """Prove a matrix optimal, or bound how far it may be from it.

    Parameters
    ----------
    problem : IntegerProblem
        One with ``is_flow``.
    matrix : ndarray of bool, shape (C, E)
        Who holds what, within budgets.
    prices : ndarray of int, shape (E,), optional
        Prices to judge it by; default those of its residual graph.

    Returns
    -------
    Proof
        ``optimal`` is true if and only if the matrix has the least violation and, at
        that violation, the highest objective.
    """
    if prices is None:
        prices, _ = expert_prices(problem, matrix)
    bound = dual_bound(problem, prices)
    missed = problem.violation_price * problem.violation(matrix).total(1)
    optimal = problem.value(matrix) - missed == bound
    return Proof(bound=bound + missed, optimal=optimal, prices=prices)


def expert_prices(
    problem: IntegerProblem, matrix: Mask, among: Mask | None = None
) -> tuple[Ints, bool]:
    """Return prices at which nobody would change anything, if there are such prices.

    Parameters
    ----------
    problem : IntegerProblem
        One with ``is_flow``.
    matrix : ndarray of bool, shape (C, E)
        Who holds what.
    among : ndarray of bool, shape (C, E), optional
        Pairs to consider; default all that are allowed.

    Returns
    -------
    ndarray of int, shape (E,)
        Prices; the last iterate when none are exact.
    bool
        Whether the residual graph has no negative cycle.
    """
    cost = _exchange_costs(problem, matrix, problem.allowed if among is None else among)
    distance = np.zeros(len(cost), dtype=np.int64)
    stable = False
    for _ in range(len(cost) + 1):
        closer = np.minimum(distance, (distance[:, None] + cost).min(axis=0))
        stable = bool((closer == distance).all())
        if stable:
            break
        distance = closer
    return distance[-1] - distance[:-1], stable


def dual_bound(problem: IntegerProblem, prices: Ints) -> int:
    """Return the Lagrangian bound: clients buy at ``prices``, experts sell at them.

    Parameters
    ----------
    problem : IntegerProblem
        One with ``is_flow``.
    prices : ndarray of int, shape (E,)
        Any prices.

    Returns
    -------
    int
        Upper bound on ``value - violation_price * violation`` of every valid matrix.
    """
    quota = problem.quota
    most = int(quota.max(initial=0))
    # A client may miss every group; what it holds of one earns that back.
    bound = -problem.violation_price * len(quota) * len(problem.labels)
    for rows in blocks(len(quota)):
        worth = reduced_gain(problem, prices, rows)
        reward_groups(problem, worth)
        if 0 < most < worth.shape[1]:
            worth = np.partition(worth, worth.shape[1] - most, axis=1)[:, -most:]
        worth = np.sort(worth, axis=1)[:, ::-1][:, :most]
        taken = np.maximum(worth, 0) * (np.arange(most) < quota[rows, None])
        bound += int(taken.sum())
    return bound + _best_sales(problem, prices)


def reduced_gain(problem: IntegerProblem, prices: Ints, rows: slice) -> Ints:
    """Return gain minus price for some clients; hopeless where it is not allowed."""
    gain = problem.gain[rows] - prices
    gain[~problem.allowed[rows]] = -_NO_ARC
    return gain


def reward_groups(problem: IntegerProblem, worth: Ints) -> None:
    """Add to the best of each group, in place, what holding one of the group saves.

    The best ``quota`` of a row are then its client's best set: what one more expert of
    a group is worth falls with their number.
    """
    rows = np.arange(len(worth))
    for group in range(len(problem.labels)):
        inside = np.flatnonzero(problem.groups == group)
        best = inside[worth[:, inside].argmax(axis=1)]
        worth[rows, best] += problem.violation_price


def give_and_take(
    problem: IntegerProblem, matrix: Mask, worth: Ints
) -> tuple[Ints, Ints]:
    """Return what giving up a held pair costs and what taking another brings.

    Giving up the last expert of a group costs a violation more, taking the first one
    saves it; an exchange within a group does neither. Of all clients, or of some: their
    rows of the matrix and of what pairs are worth.
    """
    if not len(problem.labels):
        return worth, worth
    held = problem.held_of_groups(matrix)[:, problem.groups]
    steep = problem.violation_price
    return worth + steep * (held == 1), worth + steep * (held == 0)


def _best_sales(problem: IntegerProblem, prices: Ints) -> int:
    """Return the best of ``price * load`` minus the cost of that load, summed."""
    clients, experts = problem.gain.shape
    total = -problem.violation_price * int(problem.lower.sum())
    # The cost of one more only changes at the ends of the band.
    bends = [0 * problem.lower, problem.lower, problem.upper, clients + 0 * prices]
    for begin, end in pairwise(np.sort(np.clip(bends, 0, clients), axis=0)):
        slopes = prices - problem.load_steps(np.arange(experts), begin)
        total += int((np.maximum(slopes, 0) * (end - begin)).sum())
    return total


def _exchange_costs(problem: IntegerProblem, matrix: Mask, among: Mask) -> Ints:
    """Return the arc costs of the residual graph on E experts and the sink."""
    experts = sink = problem.gain.shape[1]
    cost = np.full((experts + 1, experts + 1), _NO_ARC)
    for rows in blocks(len(matrix)):
        _lower(cost, problem, rows, matrix[rows], among[rows])
    load = problem.load(matrix)
    every = np.arange(experts)
    rise = problem.load_steps(every, load)
    rise[load >= len(matrix)] = _NO_ARC
    fall = -problem.load_steps(every, load - 1)
    fall[load == 0] = _NO_ARC
    cost[:experts, sink] = np.minimum(cost[:experts, sink], rise)
    cost[sink, :experts] = np.minimum(cost[sink, :experts], fall)
    return np.minimum(cost, _NO_ARC)


def _lower(
    cost: Ints, problem: IntegerProblem, rows: slice, matrix: Mask, among: Mask
) -> None:
    """Lower arc costs, in place, to what some of the clients offer."""
    gain, quota = problem.gain[rows], problem.quota[rows]
    experts = sink = gain.shape[1]
    give, take = give_and_take(problem, matrix, gain)
    take = np.where(among & ~matrix, take, -_NO_ARC)
    clients, order = _holders(matrix)
    for expert in range(experts):
        holders = clients[order[expert] : order[expert + 1]]
        if holders.size:
            open_gain, dropped = take[holders], give[holders, expert]
            swaps = dropped[:, None] - open_gain
            if len(problem.labels):
                same = problem.groups == problem.groups[expert]
                kept = gain[holders, expert]
                swaps[:, same] = kept[:, None] - open_gain[:, same]
            arcs = np.append(swaps.min(axis=0), dropped.min())
            np.minimum(cost[expert], arcs, out=cost[expert])
    buyers = matrix.sum(axis=1) < quota
    if buyers.any():
        arcs = -take[buyers].max(axis=0)
        np.minimum(cost[sink, :experts], arcs, out=cost[sink, :experts])


def _holders(matrix: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return holders sorted by expert, and where each expert's run starts."""
    clients, experts = np.nonzero(matrix)
    order = np.argsort(experts, kind="stable")
    starts = np.searchsorted(experts[order], np.arange(matrix.shape[1] + 1))
    return clients[order], starts
