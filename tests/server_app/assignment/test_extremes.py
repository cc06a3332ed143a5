"""Numbers at the ends of what floats can say: a true answer, or one line that refuses.

Every solver by name, against brute force over every matrix in floats.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.assignment import AssignmentProblem, solve
from server_app.assignment.engine import SOLVERS
from tests.server_app.assignment.reference import brute_force, measure, problems

NAMES = ["auto", *SOLVERS]
HUGE = [5e-324, 1e-300, 1e-30, 1e-6, 1.0, 1e3, 1e6, 1e10, 1e30, 1e99, 1e300, 1.7e308]
EXTREME = st.tuples(st.sampled_from([1.0, -1.0, 0.3, -0.7]), st.sampled_from(HUGE))


@st.composite
def extreme_problems(draw: st.DrawFn) -> dict[str, Any]:
    """Small problems in which some numbers are as extreme as floats allow."""
    features = draw(
        st.sampled_from([{"forbidden"}, {"groups"}, {"sizes"}, {"weights"}])
    )
    arguments = draw(problems(features=frozenset(features), cells=8))
    fitness = np.array(arguments["fitness"])
    if draw(st.booleans()):
        fitness = fitness * draw(st.sampled_from(HUGE))
    else:
        for _ in range(draw(st.integers(1, 3))):
            sign, size = draw(EXTREME)
            fitness.flat[draw(st.integers(0, fitness.size - 1))] = sign * size
    arguments["fitness"] = np.clip(fitness, -1.7e308, 1.7e308)
    whole = draw(st.sampled_from([1, 2**20 - 1, 2**39 + 1, 2**49 - 1]))
    if "sizes" in arguments:
        arguments["sizes"] = [whole + size for size in arguments["sizes"]]
        arguments["capacity"] = [min(whole * k, 2**52) for k in arguments["capacity"]]
    if "load_weights" in arguments and draw(st.booleans()):
        # Not a common factor: weights of that size that differ by little.
        arguments["load_weights"] = [whole + w for w in arguments["load_weights"]]
        # A bound that is missed by less than 1e-9 of itself counts as met, so none is.
        top = sum(arguments["load_weights"])
        arguments["lower"], arguments["upper"] = 0, float(top)
    return arguments


@pytest.mark.parametrize("solver", NAMES)
@settings(max_examples=60, deadline=None)
@given(arguments=extreme_problems())
def test_an_answer_is_true_for_the_numbers_given(
    solver: str, arguments: dict[str, Any]
) -> None:
    problem = AssignmentProblem(**arguments)
    try:
        answer = solve(problem, solver, time_limit=1.0)
    except ValueError as refusal:
        assert "\n" not in str(refusal)
        return
    best, found = brute_force(arguments), measure(answer.matrix, arguments)
    assert abs(answer.objective - found.objective) <= answer.precision
    if not answer.relaxed:
        assert found.violation == 0
    if found.violation <= best.violation:
        assert answer.bound >= best.objective - answer.precision
    if answer.status == "optimal":
        assert found.violation <= best.violation
        assert found.objective >= best.objective - answer.precision


SENTINELS = [-1e3, -1e4, -1e6, -1e9, -1e10, -1e15, -3e38, 1e6, 1e10, 1e38, 1e300]


@pytest.mark.parametrize(
    ("solver", "sentinel"), [*itertools.product(NAMES, SENTINELS)], ids=str
)
def test_a_sentinel_costs_nobody_else_anything(solver: str, sentinel: float) -> None:
    fitness = np.random.default_rng(1).random((6, 4))
    fitness[0, :2] = sentinel
    try:
        held = solve(AssignmentProblem(fitness, [2] * 6, 0, 6), solver).matrix
    except ValueError as refusal:
        assert "forbidden" in str(refusal) or "at most 1e+100" in str(refusal)
        return
    others = np.sort(fitness[1:], axis=1)[:, -2:].sum()
    assert fitness[1:][held[1:]].sum() == pytest.approx(others, rel=1e-3)


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize("fitness", [-1e10, 1e10, -1e300])
def test_a_forbidden_pair_is_not_looked_at(solver: str, fitness: float) -> None:
    q = np.random.default_rng(1).random((6, 4))
    usual = solve(AssignmentProblem(q, [2] * 6, 0, 6, forbidden=[(0, 3)]), solver)
    q[0, 3] = fitness
    answer = solve(AssignmentProblem(q, [2] * 6, 0, 6, forbidden=[(0, 3)]), solver)
    assert not answer.matrix[0, 3]
    assert (answer.matrix == usual.matrix).all()
    assert (answer.objective, answer.precision) == (usual.objective, usual.precision)


# HiGHS works in floats and stops at 1e-9 of the objective, which is all this is about.
@pytest.mark.parametrize("solver", [name for name in NAMES if name != "highs"])
def test_a_gain_that_rounding_would_lose_still_fills_a_budget(solver: str) -> None:
    # Half of the pairs are worth next to nothing, but not nothing.
    fitness = np.full((4, 3), 0.5)
    fitness[2:, :] = 1e-30
    answer = solve(AssignmentProblem(fitness, [2] * 4, 0, 4), solver)
    assert answer.matrix.sum(axis=1).tolist() == [2, 2, 2, 2]


def test_the_precision_is_about_1e9_of_what_is_held() -> None:
    fitness = np.random.default_rng(0).random((20, 8))
    answer = solve(AssignmentProblem(fitness, [2] * 20, 4, 6))
    # 40 placements, each rounded by less than 2**-30, in two matrices.
    assert answer.precision == 80 * 2.0**-30


@pytest.mark.parametrize("limit", [np.inf, np.nan, 0.0, -1.0])
def test_a_time_limit_is_a_number_of_seconds(limit: float) -> None:
    with pytest.raises(ValueError, match="time_limit is"):
        solve(AssignmentProblem([[0.5]], [1], 0, 1), time_limit=limit)


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize("limit", [1e-300, 1e308])
def test_any_number_of_seconds_is_a_time_limit(solver: str, limit: float) -> None:
    answer = solve(AssignmentProblem([[0.5]], [1], 0, 1), solver, time_limit=limit)
    assert answer.matrix.tolist() == [[True]]


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize("bonus", [0.5, 1.0, 1e3, 1e5])
def test_a_bonus_above_all_fitness_is_an_honest_one(solver: str, bonus: float) -> None:
    fitness = np.random.default_rng(1).random((6, 4)) * 1e-12 + 0.5
    had = np.zeros((6, 4), dtype=bool)
    had[np.arange(6), np.arange(6) % 4] = True
    problem = AssignmentProblem(fitness + bonus * had, [1] * 6, 1, 2)
    answer = solve(problem, solver)
    assert (answer.matrix == had).all()
    assert answer.objective == pytest.approx(3.0 + 6 * bonus, abs=answer.precision)


def test_a_cost_that_drowns_the_fitness_is_refused() -> None:
    problem = AssignmentProblem([[0.5, 0.5, -1e12], [0.5] * 3], [1] * 2, 0, 2)
    with pytest.raises(ValueError, match=r"is -1e\+12 for client 0 and expert 2"):
        solve(problem)
