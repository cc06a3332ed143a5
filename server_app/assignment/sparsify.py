"""Large transportation instances on a few arcs per client, proved on all of them.

A client among 10 000 will hold one of the handful of experts it values most *at the
right prices*, so most of the C x E arcs only cost time. This module

1. learns prices from an exact flow on a sample of the clients (bands scaled down);
2. keeps each client's best arcs at those prices and solves the flow on them;
3. certifies the answer on the whole residual graph (:mod:`.certificate`);
4. if that fails, takes prices from the sparse optimum, adds every arc that they show
   to be missing, and tries again; after a few rounds it solves the full flow.

Only speed depends on the sample and on the number of arcs: what is returned is proved.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.certificate import (
    Certificate,
    certify,
    expert_prices,
    reduced_gain,
)
from server_app.assignment.flow import solve_flow
from server_app.assignment.instance import Instance, Ints, Mask
from server_app.assignment.limits import Answer, Limits

__all__ = ["solve_transport"]

#: Below this many free pairs, or experts, the full flow is as fast as the detour.
_SPARSE_PAIRS = 100_000
_SPARSE_EXPERTS = 24
#: Clients in the price sample, per expert and at least: enough holders per expert to
#: price it within a few neighbouring arcs.
_SAMPLE_PER_EXPERT = 2
_SAMPLE_LEAST = 400
#: Arcs per client beyond its quota: on sampled prices, then on the sparse optimum's.
_FIRST_ARCS = 6
_LATER_ARCS = 4
_ROUNDS = 4


def solve_transport(
    instance: Instance, limits: Limits, sparse: bool | None = None
) -> Answer:
    """Solve a transportation instance exactly, on few arcs where that is faster.

    Parameters
    ----------
    instance : Instance
        A transportation problem (``instance.is_flow``).
    limits : Limits
        Only the seed is used: it draws the sample. The answer is optimal either way,
        but of several optima another may be found.
    sparse : bool, optional
        Force or forbid the sparse path; default by size.

    Returns
    -------
    Answer
        Proved by a certificate; ``note`` says which path was taken.
    """
    if sparse is None:
        large = int(instance.free.sum()) >= _SPARSE_PAIRS
        sparse = large and len(instance.sizes) >= _SPARSE_EXPERTS
    if sparse:
        found = _solve_sparse(instance, np.random.default_rng(limits.seed))
        if found is not None:
            matrix, proof, note = found
            return Answer(
                matrix=matrix,
                bound=proof.bound,
                proved=proof.optimal,
                certified=proof.optimal,
                note=note,
            )
    matrix = solve_flow(instance)
    proof = certify(instance, matrix)
    note = "sparse flow not certified, full flow" if sparse else "full flow"
    return Answer(
        matrix=matrix,
        bound=proof.bound,
        proved=proof.optimal,
        certified=proof.optimal,
        note=note,
    )


def _solve_sparse(
    instance: Instance, rng: np.random.Generator
) -> tuple[Mask, Certificate, str] | None:
    """Price, solve, certify, repeat; None when it is time for the full flow."""
    prices = _sampled_prices(instance, rng)
    most = int(instance.quota.max(initial=0))
    # Equal reduced gains would give every client the same arcs.
    jitter = rng.integers(0, 2, instance.gain.shape, dtype=np.int8)
    arcs = _best_arcs(instance, prices, most + _FIRST_ARCS, jitter)
    for attempt in range(_ROUNDS):
        matrix = solve_flow(instance, arcs)
        prices, stable = expert_prices(instance, matrix)
        if stable:
            proof = certify(instance, matrix, prices)
            share = arcs.sum() / len(instance.room)
            note = f"sparse flow, {share:.1f} arcs per client, {attempt + 1} solved"
            return matrix, proof, note
        prices, _ = expert_prices(instance, matrix, among=arcs)
        missing = _missing_arcs(instance, matrix, prices)
        if attempt == 0:
            near = _best_arcs(instance, prices, most + _LATER_ARCS, jitter)
            arcs = matrix | near | missing
        else:
            arcs = arcs | missing
    return None


def _sampled_prices(instance: Instance, rng: np.random.Generator) -> Ints:
    """Return the prices of an exact solution for a sample of the clients."""
    clients, experts = instance.gain.shape
    size = min(clients, max(_SAMPLE_LEAST, _SAMPLE_PER_EXPERT * experts))
    rows = np.sort(rng.permutation(clients)[:size])
    share = float(instance.quota[rows].sum()) / max(float(instance.quota.sum()), 1.0)
    penalty = instance.penalty
    if penalty:
        # Same marginal price at the same share of the fleet.
        weight = penalty.weight / max(share, 1e-9)
        penalty = replace(penalty, weight=weight, target=penalty.target * share)
    sample = replace(
        instance,
        gain=instance.gain[rows],
        free=instance.free[rows],
        fixed=np.zeros_like(instance.fixed[rows]),
        room=instance.room[rows],
        weights=instance.weights[rows],
        lower=np.floor(instance.lower * share).astype(np.int64),
        upper=np.ceil(instance.upper * share).astype(np.int64),
        floor=instance.floor[rows],
        needs=instance.needs[rows],
        penalty=penalty,
        fixed_load=np.rint(instance.fixed_load * share).astype(np.int64),
    )
    return expert_prices(sample, solve_flow(sample))[0]


def _best_arcs(
    instance: Instance, prices: Ints, count: int, jitter: NDArray[np.int8]
) -> Mask:
    """Mark the ``count`` free pairs of each client with the most gain after price."""
    experts = len(prices)
    if count >= experts:
        return instance.free
    worth = reduced_gain(instance, prices, slice(None)) + jitter
    best = np.argpartition(worth, experts - count, axis=1)[:, experts - count :]
    arcs = np.zeros_like(instance.free)
    np.put_along_axis(arcs, best, True, axis=1)
    return arcs & instance.free


def _missing_arcs(instance: Instance, matrix: Mask, prices: Ints) -> Mask:
    """Mark the pairs that a client would rather hold at these prices."""
    worth = reduced_gain(instance, prices, slice(None))
    none = np.iinfo(np.int64).max
    least = np.where(matrix, worth, none).min(axis=1)
    unfilled = matrix.sum(axis=1) < instance.quota
    least[unfilled] = np.minimum(least[unfilled], 0)
    rather: Mask = instance.free & ~matrix & (worth > least[:, None])
    return rather
