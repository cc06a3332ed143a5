"""Few arcs a client find the optimum of all of them, or all of them are taken."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from server_app.assignment import AssignmentProblem, integers
from server_app.assignment.flow import sparsified
from server_app.assignment.flow.certified import certify
from server_app.assignment.flow.exact import solve_flow
from server_app.assignment.flow.sparsified import (
    _best_arcs,
    _missing_arcs,
    solve_counted,
)
from server_app.assignment.limits import WorkLimits
from server_app.assignment.rounding import to_integers


def fleet(clients: int, experts: int, seed: int, **more: Any) -> AssignmentProblem:
    rng = np.random.default_rng(seed)
    capacity = rng.integers(2, 4, clients)
    target = capacity.sum() / experts
    return AssignmentProblem(
        # Clients agree on which experts are good: the hard case for sampled prices.
        fitness=0.7 * rng.random(experts) + 0.3 * rng.random((clients, experts)),
        capacity=capacity,
        lower=np.full(experts, 0.9 * target),
        upper=np.full(experts, 1.1 * target),
        **more,
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "more",
    [{}, {"groups": np.arange(40) // 20}, {"forbidden": [(0, 0), (7, 3)]}],
    ids=["plain", "layers", "forbidden"],
)
def test_sparse_equals_full(seed: int, more: dict[str, Any]) -> None:
    problem = to_integers(fleet(300, 40, seed, **more))
    limits = WorkLimits.of(10.0, seed)
    sparse = solve_counted(problem, limits, sparse=True)
    full = solve_counted(problem, limits, sparse=False)
    assert sparse.note.startswith("sparse flow")
    assert "full" not in sparse.note
    assert sparse.certified and full.certified
    assert problem.value(sparse.matrix) == problem.value(full.matrix)
    assert sparse.bound == problem.value(sparse.matrix)


@pytest.mark.parametrize("more", [{}, {"groups": np.arange(40) // 20}])
def test_a_large_sample_is_priced_by_a_sample_of_its_own(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flow(problem: Any, among: Any = None) -> Any:
        sizes.append(len(problem.gain))
        return solve_flow(problem, among)

    sizes: list[int] = []
    monkeypatch.setattr(sparsified, "solve_flow", flow)
    monkeypatch.setattr(sparsified, "_SAMPLE_LEAST", 60)
    monkeypatch.setattr(sparsified, "_SAMPLE_PER_EXPERT", 0)
    problem = to_integers(fleet(800, 40, 0, **more))
    limits = WorkLimits.of(10.0, 0)
    sparse = solve_counted(problem, limits, sparse=True)
    assert list(dict.fromkeys(sizes)) == [60, 100, 800]  # 100 is an eighth of 800
    full = solve_counted(problem, limits, sparse=False)
    assert sparse.certified
    assert problem.value(sparse.matrix) == problem.value(full.matrix)


def test_falls_back_to_the_full_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    # Arcs chosen at misleading prices, and no second attempt: nothing to certify.
    def misleading(problem: Any, rng: Any) -> Any:
        return problem.gain.max(axis=0) * np.arange(problem.gain.shape[1])

    monkeypatch.setattr(sparsified, "_sampled_prices", misleading)
    monkeypatch.setattr(sparsified, "_ROUNDS", 1)
    problem = to_integers(fleet(300, 40, 0))
    answer = solve_counted(problem, WorkLimits.of(10.0, 0), sparse=True)
    assert "full flow" in answer.note
    assert answer.certified


@pytest.mark.parametrize("block", [1, 7, 299])
@pytest.mark.parametrize("more", [{}, {"groups": np.arange(40) // 20}])
def test_how_many_clients_are_looked_at_together_changes_nothing(
    block: int, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[Any, ...]:
        problem = to_integers(fleet(300, 40, 0, **more))
        answer = solve_counted(problem, WorkLimits.of(10.0, 0), sparse=True)
        # Some hold less than they could, some of the best goes to others.
        poor = np.roll(answer.matrix, 1, axis=0) & (problem.gain % 3 > 0)
        proof, best = certify(problem, poor), answer.matrix
        return problem.gain, best, answer.bound, proof.prices, proof.bound, answer.note

    whole = found()
    monkeypatch.setattr(integers, "_BLOCK", block)
    np.testing.assert_equal(found(), whole)


def test_what_is_made_of_a_large_matrix_is_small() -> None:
    # Twelve blocks; the gain is of eight bytes a pair, a mask of one.
    problem = fleet(12 << 14, 16, 0)
    pairs = problem.fitness.size
    tracemalloc.start()
    try:
        whole = to_integers(problem)
        assert tracemalloc.get_traced_memory()[1] < 14 * pairs
        matrix = whole.allowed & (np.arange(16) < 2)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        certify(whole, matrix)
        _missing_arcs(whole, matrix, np.zeros(16, dtype=np.int64))
        jitter = np.zeros(whole.gain.shape, dtype=np.int8)
        _best_arcs(whole, np.zeros(16, dtype=np.int64), 4, jitter)
        assert tracemalloc.get_traced_memory()[1] - before < 6 * pairs
    finally:
        tracemalloc.stop()
