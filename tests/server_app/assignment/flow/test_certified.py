"""The certificate accepts optima, rejects everything else, and covers the band."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.assignment import AssignmentProblem
from server_app.assignment.flow.certified import certify, dual_bound
from server_app.assignment.flow.exact import solve_flow
from server_app.assignment.rounding import to_integers
from tests.server_app.assignment.reference import brute_force, measure, problems


def planted(matrix: list[list[int]], **arguments: Any) -> bool:
    """Whether the certificate takes this matrix for optimal."""
    problem = to_integers(AssignmentProblem(**arguments))
    return certify(problem, np.array(matrix, dtype=bool)).optimal


def test_rejects_an_exchange_that_pays() -> None:
    case = {"fitness": [[0.9, 0.1], [0.8, 0.7]], "capacity": 1, "lower": 1, "upper": 1}
    case["capacity"] = [1, 1]
    assert planted([[1, 0], [0, 1]], **case)  # 0.9 + 0.7
    assert not planted([[0, 1], [1, 0]], **case)  # 0.1 + 0.8


@pytest.mark.parametrize("less", [2.0**-29, 1e-8, 1e-6, 1e-3])
def test_rejects_what_is_worse_by_a_little(less: float) -> None:
    case = {"fitness": [[0.9, 0.9 - less]], "capacity": [1], "lower": 0, "upper": 1}
    assert planted([[1, 0]], **case)
    assert not planted([[0, 1]], **case)
    # A worse one of two that could swap, and a bound that is missed, likewise.
    swap = {"fitness": [[0.5, 0.5 - less], [0.5, 0.5]], "capacity": [1, 1]}
    assert not planted([[0, 1], [1, 0]], lower=1, upper=1, **swap)
    assert planted([[1, 0], [0, 1]], lower=1, upper=1, **swap)


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


def test_rejects_a_layer_left_out_and_an_exchange_that_pays_within_one() -> None:
    # Two layers of two experts; the client can hold three.
    case: dict[str, Any] = {"fitness": [[0.9, 0.8, 0.3, 0.4]], "lower": 0, "upper": 1}
    case |= {"groups": [0, 0, 1, 1], "capacity": [2]}
    assert planted([[1, 0, 0, 1]], **case)
    assert not planted([[1, 1, 0, 0]], **case)  # 1.7, but nothing of layer 1
    assert not planted([[0, 1, 0, 1]], **case)  # 0.8 where 0.9 is free
    assert not planted([[1, 0, 1, 0]], **case)
    assert planted([[1, 1, 0, 1]], **case | {"capacity": [3]})
    # Room for one only: a layer is missed whatever is held, so fitness decides.
    assert planted([[1, 0, 0, 0]], **case | {"capacity": [1]})
    assert not planted([[0, 0, 0, 1]], **case | {"capacity": [1]})


@pytest.mark.parametrize("features", ["forbidden", "forbidden groups"])
@given(data=st.data())
@settings(max_examples=80)
def test_accepts_exactly_the_optima(features: str, data: st.DataObject) -> None:
    arguments = data.draw(problems(features=frozenset(features.split())))
    problem = to_integers(AssignmentProblem(**arguments))
    shape = problem.gain.shape
    flips = data.draw(st.lists(st.booleans(), min_size=shape[0] * shape[1]))
    matrix = solve_flow(problem)
    changed = matrix ^ np.resize(np.array(flips), shape)
    for candidate in (matrix, changed & problem.allowed):
        if (candidate.sum(axis=1) > problem.capacity).any():
            continue
        best, found = brute_force(arguments), measure(candidate, arguments)
        optimal = found.violation <= best.violation + 1e-6
        optimal = optimal and found.objective >= best.objective - 1e-6
        assert certify(problem, candidate).optimal == optimal


@pytest.mark.parametrize("features", ["forbidden", "forbidden groups"])
@given(data=st.data())
@settings(max_examples=80)
def test_any_prices_bound_the_optimum(features: str, data: st.DataObject) -> None:
    arguments = data.draw(problems(features=frozenset(features.split())))
    problem = to_integers(AssignmentProblem(**arguments))
    experts = len(problem.sizes)
    price = st.floats(-3.0, 3.0)
    prices = data.draw(st.lists(price, min_size=experts, max_size=experts))
    bound = dual_bound(problem, np.rint(np.array(prices) * problem.scale).astype(int))
    best = brute_force(arguments)
    missed = best.violation * problem.violation_price
    assert bound >= best.objective * problem.scale - missed - experts * 10
