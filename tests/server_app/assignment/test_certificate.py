"""The certificate accepts optima, rejects everything else, and covers the band."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.assignment import AssignmentProblem, sparsify
from server_app.assignment.certificate import certify, dual_bound
from server_app.assignment.flow import solve_flow
from server_app.assignment.limits import Limits
from server_app.assignment.rounding import compile_instance
from server_app.assignment.sparsify import solve_transport
from tests.server_app.assignment.reference import brute_force, measure, problems

FEATURES = frozenset({"switching", "penalty", "floor", "forbidden"})


def planted(matrix: list[list[int]], **arguments: Any) -> bool:
    """Whether the certificate takes this matrix for optimal."""
    instance = compile_instance(AssignmentProblem(**arguments))
    return certify(instance, np.array(matrix, dtype=bool)).optimal


def test_rejects_an_exchange_that_pays() -> None:
    case = {"fitness": [[0.9, 0.1], [0.8, 0.7]], "capacity": 1, "lower": 1, "upper": 1}
    case["capacity"] = [1, 1]
    assert planted([[1, 0], [0, 1]], **case)  # 0.9 + 0.7
    assert not planted([[0, 1], [1, 0]], **case)  # 0.1 + 0.8


def test_rejects_a_cycle_through_three_clients() -> None:
    # No two clients gain by swapping; all three gain by rotating.
    fitness = [[0.5, 0.6, 0.0], [0.0, 0.5, 0.6], [0.6, 0.0, 0.5]]
    case = {"fitness": fitness, "capacity": [1, 1, 1], "lower": 1, "upper": 1}
    assert not planted([[1, 0, 0], [0, 1, 0], [0, 0, 1]], **case)
    assert planted([[0, 1, 0], [0, 0, 1], [1, 0, 0]], **case)


def test_rejects_load_left_unmoved_within_the_band() -> None:
    # Each client holds one expert, no exchange between clients exists: only the slack
    # of the bands lets client 1 move from expert 0 to expert 1.
    case = {"fitness": [[0.9, 0.1], [0.2, 0.8]], "capacity": [1, 1]}
    assert not planted([[1, 0], [1, 0]], lower=0, upper=2, **case)
    assert planted([[1, 0], [0, 1]], lower=0, upper=2, **case)
    # With expert 0 bound to two holders the same matrix is optimal.
    assert planted([[1, 0], [1, 0]], lower=[2, 0], upper=2, **case)


def test_rejects_budget_left_unused_and_a_placement_that_costs() -> None:
    case = {"fitness": [[0.9, -0.1]], "capacity": [2], "lower": 0, "upper": 1}
    assert not planted([[0, 0]], **case)
    assert not planted([[1, 1]], **case)
    assert planted([[1, 0]], **case)


def test_rejects_a_bound_missed_without_need() -> None:
    case = {"fitness": [[0.9, 0.1], [0.9, 0.1]], "capacity": [1, 1], "upper": 2}
    assert not planted([[1, 0], [1, 0]], lower=[0, 1], **case)
    # Both experts cannot have two holders each: two units short, wherever they fall.
    assert planted([[1, 0], [1, 0]], lower=[2, 2], **case)


@given(arguments=problems(features=FEATURES), data=st.data())
@settings(max_examples=80)
def test_accepts_exactly_the_optima(
    arguments: dict[str, Any], data: st.DataObject
) -> None:
    instance = compile_instance(AssignmentProblem(**arguments))
    shape = instance.gain.shape
    flips = data.draw(st.lists(st.booleans(), min_size=shape[0] * shape[1]))
    matrix = solve_flow(instance)
    changed = matrix ^ np.resize(np.array(flips), shape)
    for candidate in (matrix, changed):
        if not instance.is_valid(candidate):
            continue
        best, found = brute_force(arguments), measure(candidate, arguments)
        optimal = found.violation <= best.violation + 1e-6
        optimal = optimal and found.objective >= best.objective - 1e-6
        assert certify(instance, candidate).optimal == optimal


@given(arguments=problems(features=FEATURES), data=st.data())
@settings(max_examples=80)
def test_any_prices_bound_the_optimum(
    arguments: dict[str, Any], data: st.DataObject
) -> None:
    instance = compile_instance(AssignmentProblem(**arguments))
    experts = len(instance.sizes)
    price = st.floats(-3.0, 3.0)
    prices = data.draw(st.lists(price, min_size=experts, max_size=experts))
    bound = dual_bound(instance, np.rint(np.array(prices) * instance.scale).astype(int))
    best = brute_force(arguments)
    missed = best.violation * instance.violation_price
    assert bound >= best.objective * instance.scale - missed - experts * 10


def transport(clients: int, experts: int, seed: int, **more: Any) -> AssignmentProblem:
    rng = np.random.default_rng(seed)
    capacity = rng.integers(1, 4, clients)
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
    [{}, {"load_penalty": 0.01}, {"floor": 2}],
    ids=["plain", "penalty", "floor"],
)
def test_sparse_equals_full(seed: int, more: dict[str, Any]) -> None:
    instance = compile_instance(transport(300, 40, seed, **more))
    limits = Limits.of(10.0, seed)
    sparse = solve_transport(instance, limits, sparse=True)
    full = solve_transport(instance, limits, sparse=False)
    assert "sparse" in sparse.note
    assert sparse.certified and full.certified
    assert instance.value(sparse.matrix) == instance.value(full.matrix)
    assert sparse.bound == instance.value(sparse.matrix)


def test_falls_back_to_the_full_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    # Arcs chosen at misleading prices, and no second attempt: nothing to certify.
    def misleading(instance: Any, rng: Any) -> Any:
        return instance.gain.max(axis=0) * np.arange(instance.gain.shape[1])

    monkeypatch.setattr(sparsify, "_sampled_prices", misleading)
    monkeypatch.setattr(sparsify, "_ROUNDS", 1)
    instance = compile_instance(transport(300, 40, 0))
    answer = solve_transport(instance, Limits.of(10.0, 0), sparse=True)
    assert "full flow" in answer.note
    assert answer.certified
