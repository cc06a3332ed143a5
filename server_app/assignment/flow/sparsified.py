"""Many clients on a few arcs each, proved on all of them.

A client among 10 000 will hold one of the handful of experts it values most *at the
right prices*, so most of the C x E arcs only cost time. This module

1. learns prices from an exact flow on a sample of the clients (bands scaled down),
   which is found in the same way where the sample is large;
2. keeps each client's best arcs at those prices and solves the flow on them;
3. certifies the answer on the whole residual graph (:mod:`.certified`);
4. if that fails, takes prices from the sparse optimum, adds every arc that they show
   to be missing, and tries again; after a few rounds it solves the full flow.

Only speed depends on the sample and on the number of arcs: what is returned is proved.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.flow.certified import (
    Proof,
    certify,
    expert_prices,
    give_and_take,
    reduced_gain,
    reward_groups,
)
from server_app.assignment.flow.exact import solve_flow
from server_app.assignment.integers import IntegerProblem, Ints, Mask, blocks
from server_app.assignment.limits import SolverAnswer, WorkLimits

__all__ = ["solve_counted"]

#: Below this many allowed pairs, or experts, the full flow is as fast as the detour.
_SPARSE_PAIRS = 100_000
_SPARSE_EXPERTS = 24
#: Clients in the price sample, per expert and at least: enough holders per expert to
#: price it within a few neighbouring arcs. Of very many clients one in so many: better
#: prices save a second flow on all of them.
_SAMPLE_PER_EXPERT = 2
_SAMPLE_LEAST = 400
_SAMPLE_SHARE = 8
#: Arcs per client beyond its quota: on sampled prices, then on the sparse optimum's.
_FIRST_ARCS = 6
_LATER_ARCS = 4
_ROUNDS = 4


def solve_counted(
    problem: IntegerProblem, limits: WorkLimits, sparse: bool | None = None
) -> SolverAnswer:
    """Solve a problem of counts exactly, on few arcs where that is faster.

    Parameters
    ----------
    problem : IntegerProblem
        One with ``is_flow``.
    limits : WorkLimits
        Only the seed is used: it draws the sample. The answer is optimal either way,
        but of several optima another may be found.
    sparse : bool, optional
        Force or forbid the sparse path; default by size.

    Returns
    -------
    SolverAnswer
        Proved by a certificate; ``note`` says which path was taken.
    """
    if sparse is None:
        large = int(problem.allowed.sum()) >= _SPARSE_PAIRS
        sparse = large and len(problem.sizes) >= _SPARSE_EXPERTS
    if sparse:
        found = _solve_sparse(problem, np.random.default_rng(limits.seed))
        if found is not None:
            return found
    matrix = solve_flow(problem)
    note = "sparse flow not certified, full flow" if sparse else "full flow"
    return _answer(matrix, certify(problem, matrix), note)


def _answer(matrix: Mask, proof: Proof, note: str) -> SolverAnswer:
    return SolverAnswer(
        matrix=matrix,
        bound=proof.bound,
        proved=proof.optimal,
        certified=proof.optimal,
        note=note,
    )


def _solve_sparse(
    problem: IntegerProblem, rng: np.random.Generator
) -> SolverAnswer | None:
    """Price, solve, certify, repeat; None when it is time for the full flow."""
    prices = _sampled_prices(problem, rng)
    most = int(problem.quota.max(initial=0))
    # Equal reduced gains would give every client the same arcs.
    jitter = rng.integers(0, 2, problem.gain.shape, dtype=np.int8)
    arcs = _best_arcs(problem, prices, most + _FIRST_ARCS, jitter)
    for attempt in range(_ROUNDS):
        matrix = solve_flow(problem, arcs)
        prices, stable = expert_prices(problem, matrix)
        if stable:
            proof = certify(problem, matrix, prices)
            share = arcs.sum() / len(problem.capacity)
            note = f"sparse flow, {share:.1f} arcs per client, {attempt + 1} solved"
            return _answer(matrix, proof, note)
        prices, _ = expert_prices(problem, matrix, among=arcs)
        missing = _missing_arcs(problem, matrix, prices)
        if attempt == 0:
            near = _best_arcs(problem, prices, most + _LATER_ARCS, jitter)
            arcs = matrix | near | missing
        else:
            arcs = arcs | missing
    return None


def _sampled_prices(problem: IntegerProblem, rng: np.random.Generator) -> Ints:
    """Return the prices of an exact solution for a sample of the clients."""
    clients, experts = problem.gain.shape
    least = max(_SAMPLE_LEAST, _SAMPLE_PER_EXPERT * experts)
    size = min(clients, max(least, clients // _SAMPLE_SHARE))
    rows = np.sort(rng.permutation(clients)[:size])
    share = float(problem.quota[rows].sum()) / max(float(problem.quota.sum()), 1.0)
    sample = replace(
        problem,
        gain=problem.gain[rows],
        allowed=problem.allowed[rows],
        capacity=problem.capacity[rows],
        weights=problem.weights[rows],
        lower=np.floor(problem.lower * share).astype(np.int64),
        upper=np.ceil(problem.upper * share).astype(np.int64),
    )
    found = _solve_sparse(sample, rng) if size > least else None
    matrix = solve_flow(sample) if found is None else found.matrix
    return expert_prices(sample, matrix)[0]


def _best_arcs(
    problem: IntegerProblem, prices: Ints, count: int, jitter: NDArray[np.int8]
) -> Mask:
    """Mark each client's ``count`` allowed pairs with the most gain after price."""
    experts = len(prices)
    if count >= experts:
        return problem.allowed
    arcs = np.zeros_like(problem.allowed)
    for rows in blocks(len(arcs)):
        worth = reduced_gain(problem, prices, rows) + jitter[rows]
        reward_groups(problem, worth)
        best = np.argpartition(worth, experts - count, axis=1)[:, experts - count :]
        np.put_along_axis(arcs[rows], best, True, axis=1)
    arcs &= problem.allowed
    return arcs


def _missing_arcs(problem: IntegerProblem, matrix: Mask, prices: Ints) -> Mask:
    """Mark the pairs that a client would rather hold at these prices."""
    missing = problem.allowed & ~matrix
    for rows in blocks(len(matrix)):
        missing[rows] &= _rather(problem, rows, matrix[rows], prices)
    return missing


def _rather(problem: IntegerProblem, rows: slice, matrix: Mask, prices: Ints) -> Mask:
    """Mark the pairs of some clients that are worth more than one they hold."""
    worth = reduced_gain(problem, prices, rows)
    give, take = give_and_take(problem, matrix, worth)
    none = np.iinfo(np.int64).max
    least = np.where(matrix, give, none).min(axis=1)
    unfilled = matrix.sum(axis=1) < problem.quota[rows]
    least[unfilled] = np.minimum(least[unfilled], 0)
    rather: Mask = take > least[:, None]
    for group in range(len(problem.labels)):
        inside = problem.groups == group
        least = np.where(matrix[:, inside], worth[:, inside], none).min(axis=1)
        rather[:, inside] |= worth[:, inside] > least[:, None]
    return rather
