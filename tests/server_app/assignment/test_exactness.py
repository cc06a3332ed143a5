"""Every exact solver against brute force, on every variant; bounds never lie."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.assignment import AssignmentProblem, solve
from tests.server_app.assignment.reference import brute_force, measure, problems

FLOW_VARIANTS = [
    "",
    "switching",
    "penalty",
    "floor",
    "holders",
    "forbidden",
    "switching penalty floor holders forbidden",
]
OTHER_VARIANTS = [
    "sizes",
    "weights",
    "weights holders",
    "weights penalty",
    "exclusive",
    "groups",
    "sizes exclusive groups floor",
    "sizes weights penalty exclusive groups floor holders forbidden switching",
]
TOLERANCE = 1e-6


def check_exact(arguments: dict[str, Any], solver: str) -> None:
    best = brute_force(arguments)
    answer = solve(AssignmentProblem(**arguments), solver)
    found = measure(answer.matrix, arguments)
    assert found.violation == pytest.approx(best.violation, abs=TOLERANCE)
    assert found.objective == pytest.approx(best.objective, abs=TOLERANCE)
    assert answer.objective == pytest.approx(best.objective, abs=TOLERANCE)
    assert answer.bound >= answer.objective
    assert answer.bound == pytest.approx(best.objective, abs=TOLERANCE)
    assert answer.status == "optimal"
    assert bool(answer.relaxed) == (best.violation > 0)
    assert (answer.infeasibility is None) == (best.violation == 0)


@pytest.mark.parametrize("features", FLOW_VARIANTS)
@given(data=st.data())
@settings(max_examples=50)
def test_flow_is_exact_and_certified(features: str, data: st.DataObject) -> None:
    arguments = data.draw(problems(features=frozenset(features.split())))
    check_exact(arguments, "flow")
    assert solve(AssignmentProblem(**arguments), "flow").certified


@pytest.mark.parametrize("features", FLOW_VARIANTS + OTHER_VARIANTS)
@given(data=st.data())
@settings(max_examples=30)
def test_cp_sat_is_exact(features: str, data: st.DataObject) -> None:
    check_exact(data.draw(problems(features=frozenset(features.split()))), "cp-sat")


@pytest.mark.parametrize("features", FLOW_VARIANTS)
@given(data=st.data())
@settings(max_examples=20)
def test_flow_and_cp_sat_agree_to_the_last_bit(
    features: str, data: st.DataObject
) -> None:
    # Larger than brute force reaches; the reported objectives are equal, not close.
    drawn = problems(features=frozenset(features.split()), cells=40)
    problem = AssignmentProblem(**data.draw(drawn))
    assert solve(problem, "flow").objective == solve(problem, "cp-sat").objective


@pytest.mark.parametrize(
    "features", ["", "sizes", "weights penalty", OTHER_VARIANTS[-1]]
)
@given(data=st.data())
@settings(max_examples=15)
def test_highs_is_exact(features: str, data: st.DataObject) -> None:
    check_exact(data.draw(problems(features=frozenset(features.split()))), "highs")


@pytest.mark.parametrize("solver", ["columns", "greedy"])
@pytest.mark.parametrize("features", ["", *OTHER_VARIANTS])
@given(data=st.data())
@settings(max_examples=15)
def test_heuristics_are_valid_and_their_bounds_hold(
    features: str, solver: str, data: st.DataObject
) -> None:
    arguments = data.draw(problems(features=frozenset(features.split())))
    best = brute_force(arguments)
    answer = solve(AssignmentProblem(**arguments), solver)
    found = measure(answer.matrix, arguments)
    assert found.violation >= best.violation - TOLERANCE
    if found.violation <= best.violation + TOLERANCE:
        assert found.objective <= best.objective + TOLERANCE
        assert answer.bound >= best.objective - TOLERANCE
    if answer.status == "optimal":
        assert found.objective == pytest.approx(best.objective, abs=TOLERANCE)
