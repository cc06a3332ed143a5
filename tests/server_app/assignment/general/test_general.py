"""Byte budgets and data-weighted loads at size: valid, and close to the bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from server_app.assignment import AssignmentProblem, solve
from server_app.assignment.general.from_flow import assignment_by_counts
from server_app.assignment.rounding import to_integers
from tests.server_app.assignment.reference import measure, problems


def byte_problem(clients: int, experts: int, **more: Any) -> AssignmentProblem:
    rng = np.random.default_rng(clients)
    sizes = rng.integers(200_000, 1_000_000, experts)
    capacity = np.rint(sizes.mean() * rng.choice([1.5, 2.5, 4.5], clients))
    load = capacity.sum() / sizes.sum()
    return AssignmentProblem(
        rng.random((clients, experts)),
        capacity,
        np.full(experts, 0.9 * load),
        np.full(experts, 1.1 * load),
        sizes=sizes,
        **more,
    )


def test_byte_budgets_hold_and_the_gap_is_small() -> None:
    problem = byte_problem(60, 12)
    answer = solve(problem, time_limit=60.0)
    assert answer.solver == "highs"
    assert problem.sizes is not None
    assert (answer.matrix @ problem.sizes <= problem.capacity).all()
    load = answer.matrix.sum(axis=0)
    assert (np.ceil(problem.lower) <= load).all()
    assert (load <= np.floor(problem.upper)).all()
    assert answer.relaxed == ()
    assert 0.0 <= answer.gap < 0.005


def test_data_weighted_loads_keep_their_band() -> None:
    rng = np.random.default_rng(1)
    samples = rng.integers(50, 900, 60)
    mean = 2 * samples.sum() / 12
    problem = AssignmentProblem(
        rng.random((60, 12)),
        [2] * 60,
        np.full(12, 0.95 * mean),
        np.full(12, 1.05 * mean),
        load_weights=samples,
    )
    answer = solve(problem, time_limit=60.0)
    load = samples @ answer.matrix
    assert ((0.95 * mean <= load) & (load <= 1.05 * mean)).all()
    assert answer.gap < 1e-3


@pytest.mark.parametrize("solver", ["cp-sat", "highs"])
def test_a_limit_too_short_for_anything_leaves_the_flow_s_answer(solver: str) -> None:
    problem = byte_problem(400, 32)
    answer = solve(problem, solver, time_limit=1e-3)
    assert answer.status == "feasible"
    assert answer.bound >= answer.objective
    assert problem.sizes is not None
    assert (answer.matrix @ problem.sizes <= problem.capacity).all()
    # Nobody has room left for an expert that is below its band.
    short = answer.matrix.sum(axis=0) < np.ceil(problem.lower)
    room = problem.capacity - answer.matrix @ problem.sizes
    fits = ~answer.matrix & (problem.sizes <= room[:, None])
    assert not fits[:, short].any()


@given(arguments=problems(features=frozenset({"sizes", "weights", "forbidden"})))
@settings(max_examples=60)
def test_the_start_is_within_every_budget(arguments: dict[str, Any]) -> None:
    problem = to_integers(AssignmentProblem(**arguments))
    # Fails if a budget is exceeded or a forbidden pair is held.
    measure(assignment_by_counts(problem), arguments)
