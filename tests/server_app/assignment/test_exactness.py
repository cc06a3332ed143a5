"""Every solver against brute force, on every variant; bounds never lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.assignment import AssignmentProblem, solve
from server_app.assignment.flow.sparsified import solve_counted
from server_app.assignment.general.cp_sat import solve_cp_sat
from server_app.assignment.limits import WorkLimits
from server_app.assignment.rounding import to_integers
from tests.server_app.assignment.reference import brute_force, measure, problems

COUNTED = ["", "forbidden", "groups", "groups forbidden"]
GENERAL = ["sizes", "weights", "sizes groups", "sizes weights groups forbidden"]
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


@pytest.mark.parametrize("features", COUNTED)
@given(data=st.data())
@settings(max_examples=60)
def test_flow_is_exact_and_certified(features: str, data: st.DataObject) -> None:
    arguments = data.draw(problems(features=frozenset(features.split())))
    check_exact(arguments, "flow")
    assert solve(AssignmentProblem(**arguments), "flow").certified


@pytest.mark.parametrize("solver", ["cp-sat", "highs"])
@pytest.mark.parametrize("features", COUNTED + GENERAL)
@given(data=st.data())
@settings(max_examples=25)
def test_integer_programs_are_exact(
    features: str, solver: str, data: st.DataObject
) -> None:
    check_exact(data.draw(problems(features=frozenset(features.split()))), solver)


@pytest.mark.parametrize("features", COUNTED)
@given(data=st.data())
@settings(max_examples=25)
def test_flow_and_cp_sat_agree_to_the_last_bit(
    features: str, data: st.DataObject
) -> None:
    # Larger than brute force reaches; CP-SAT does not start from the flow's answer.
    drawn = problems(features=frozenset(features.split()), cells=40)
    problem = to_integers(AssignmentProblem(**data.draw(drawn)))
    limits = WorkLimits.of(10.0, 0)
    flow = solve_counted(problem, limits)
    other = solve_cp_sat(problem, limits, np.zeros_like(problem.allowed))
    assert other.proved
    assert problem.value(flow.matrix) == problem.value(other.matrix) == flow.bound
    missed = [problem.violation(found.matrix).total(1) for found in (flow, other)]
    assert missed[0] == missed[1]


@given(
    clients=st.integers(3, 9),
    layers=st.integers(2, 3),
    experts=st.integers(2, 4),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_layers_by_flow_are_worth_what_cp_sat_finds(
    clients: int, layers: int, experts: int, seed: int
) -> None:
    # What FLEX-MoE asks: whole experts of every layer, loads around their mean.
    rng = np.random.default_rng(seed)
    each = rng.integers(1, experts + 1, clients)
    load = each.sum() / experts
    asked = AssignmentProblem(
        rng.random((clients, layers * experts)),
        each * layers,
        np.floor(0.9 * load),
        min(np.ceil(1.1 * load), clients),
        groups=np.repeat(np.arange(layers), experts),
    )
    answer = solve(asked)
    assert (answer.solver, answer.status, answer.certified) == ("flow", "optimal", True)
    problem = to_integers(asked)
    other = solve_cp_sat(problem, WorkLimits.of(10.0, 0), np.zeros_like(answer.matrix))
    assert other.proved
    assert answer.objective == problem.value(other.matrix) / problem.scale
    if not answer.relaxed:
        by_layer = answer.matrix.reshape(clients, layers, experts)
        assert by_layer.any(axis=2).all()
        assert (answer.matrix.sum(axis=1) <= each * layers).all()
        load_of = answer.matrix.sum(axis=0)
        assert (load_of >= asked.lower).all() and (load_of <= asked.upper).all()
