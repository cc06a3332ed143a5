"""Few arcs a client find the optimum of all of them, or all of them are taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server_app.assignment import AssignmentProblem
from server_app.assignment.flow import sparsified
from server_app.assignment.flow.sparsified import solve_counted
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
