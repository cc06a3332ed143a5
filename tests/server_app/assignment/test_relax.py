"""Conflicting bounds: never an exception, the least relaxation, and an explanation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from server_app.assignment import AssignmentProblem, explain, solve
from tests.server_app.assignment.reference import problems

SOLVERS = ["auto", "flow", "cp-sat", "highs", "columns"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_more_owed_than_there_is_budget(solver: str) -> None:
    # Two experts want two holders each; two clients can hold one expert each.
    problem = AssignmentProblem([[0.9, 0.1], [0.9, 0.2]], [1, 1], [2, 2], [2, 2])
    answer = solve(problem, solver)
    # Every full assignment is two short, so fitness decides.
    assert answer.matrix.tolist() == [[True, False], [True, False]]
    assert answer.objective == pytest.approx(1.8)
    assert answer.relaxed == ("lower of expert 1 missed by 2: load 0, wanted 2",)
    assert answer.infeasibility is not None
    assert answer.infeasibility.short.tolist() == [0.0, 2.0]
    assert "take 4 placements" in str(answer.infeasibility)
    assert "room for 2 there: 2 too many" in str(answer.infeasibility)


def test_the_hall_set_names_only_the_experts_in_conflict() -> None:
    # Experts 0 and 1 fit on client 0 alone; expert 2 has the whole rest of the fleet.
    forbidden = [(client, expert) for client in (1, 2, 3) for expert in (0, 1)]
    problem = AssignmentProblem(
        np.full((4, 3), 0.5), [1] * 4, [1, 1, 2], [4, 4, 4], forbidden=forbidden
    )
    why = explain(problem)
    assert why is not None
    assert why.conflicts == (
        "the lower bounds of experts 0, 1 take 2 placements, but clients have room "
        "for 1 there: 1 too many",
    )
    assert why.short.sum() == 1.0


def test_an_expert_nobody_may_hold() -> None:
    problem = AssignmentProblem(
        np.ones((2, 2)), [1, 1], [1, 0], [2, 2], forbidden=[(0, 0), (1, 0)]
    )
    why = explain(problem)
    assert why is not None
    assert "expert 0 needs load 1 but the clients that may hold it carry 0" in str(why)


def test_floors_against_upper_bounds() -> None:
    # Three clients must hold two of two experts; each expert may have two holders.
    problem = AssignmentProblem(np.full((3, 2), 0.5), [2] * 3, 0, 2, floor=2)
    answer = solve(problem)
    assert answer.infeasibility is not None
    assert "the clients' floors take 6 placements" in str(answer.infeasibility)
    assert "room for 4 there: 2 too many" in str(answer.infeasibility)
    assert len(answer.relaxed) in (1, 2)


def test_a_feasible_problem_has_nothing_to_explain() -> None:
    problem = AssignmentProblem(np.ones((4, 2)), [1] * 4, 2, 2)
    assert explain(problem) is None
    assert solve(problem).relaxed == ()


@given(arguments=problems(features=frozenset({"forbidden"}), cells=16))
@settings(max_examples=60)
def test_the_slack_it_names_is_what_fixes_it(arguments: dict[str, Any]) -> None:
    problem = AssignmentProblem(**arguments)
    why = explain(problem)
    if why is None:
        assert solve(problem).relaxed == ()
        return
    fixed = replace(
        problem, lower=problem.lower - why.short, upper=problem.upper + why.over
    )
    assert explain(fixed) is None


def test_budgets_bans_and_exclusions_hold_whatever_is_asked() -> None:
    problem = AssignmentProblem(
        np.ones((2, 3)),
        [1, 2],
        lower=2,
        upper=2,
        forbidden=[(0, 0)],
        exclusive=[[1, 2]],
        floor=3,
    )
    matrix = solve(problem).matrix
    assert (matrix.sum(axis=1) <= [1, 2]).all()
    assert not matrix[0, 0]
    assert (matrix[:, 1:].sum(axis=1) <= 1).all()


def test_pins_that_cannot_be_honoured_are_dropped_and_named() -> None:
    problem = AssignmentProblem(
        fitness=[[0.1, 0.9, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]],
        capacity=[1, 2],
        lower=0,
        upper=2,
        pinned=[(0, 0), (0, 1), (1, 2), (1, 0), (1, 3)],
        forbidden=[(1, 2)],
        exclusive=[[0, 3]],
    )
    answer = solve(problem)
    # Client 0 has room for one pin and keeps the fitter; client 1 keeps expert 0.
    assert answer.matrix.astype(int).tolist() == [[0, 1, 0, 0], [1, 1, 0, 0]]
    assert answer.relaxed == (
        "pin of expert 0 on client 0 dropped: it does not fit beside the other pins",
        "pin of expert 2 on client 1 dropped: it is forbidden",
        "pin of expert 3 on client 1 dropped: an exclusive expert is pinned too",
    )


def test_pins_count_towards_bounds() -> None:
    problem = AssignmentProblem(
        [[0.1, 0.9], [0.1, 0.9]], [1, 1], [1, 0], [1, 2], pinned=[(0, 0)]
    )
    answer = solve(problem)
    assert answer.matrix.tolist() == [[True, False], [False, True]]
    assert answer.objective == pytest.approx(1.0)
    both = np.array([[True, False], [True, False]])
    crowded = solve(replace(problem, pinned=both))
    assert crowded.relaxed == ("upper of expert 0 missed by 1: load 2, wanted 1",)
    assert "pins alone exceed the upper bound of expert 0" in str(crowded.infeasibility)


def test_a_band_without_a_whole_number_in_it() -> None:
    answer = solve(AssignmentProblem(np.ones((3, 1)), [1] * 3, 1.2, 1.8))
    assert answer.relaxed
    assert "no whole load lies within the band of expert 0" in str(answer.infeasibility)


def test_groups_are_named_as_the_caller_named_them() -> None:
    problem = AssignmentProblem([[0.9, 0.5]], [1], 0, 1, groups=[70, 30])
    assert solve(problem).relaxed == ("client 0 holds no expert of group 30",)


def test_a_fleet_of_misses_is_cut_short() -> None:
    problem = AssignmentProblem(np.ones((30, 2)), [1] * 30, 0, 30, floor=2)
    relaxed = solve(problem).relaxed
    assert relaxed[0] == "floor of client 0 missed by 1"
    assert relaxed[-1] == "... and 22 more like this"
    assert len(relaxed) == 9
