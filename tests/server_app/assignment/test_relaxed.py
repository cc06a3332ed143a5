"""Conflicting bounds: never an exception, the least relaxation, and a line for each."""

from __future__ import annotations

import numpy as np
import pytest

from server_app.assignment import AssignmentProblem, solve
from server_app.assignment.engine import SOLVERS

NAMES = ["auto", *SOLVERS]


@pytest.mark.parametrize("solver", NAMES)
def test_more_owed_than_there_is_budget(solver: str) -> None:
    # Two experts want two holders each; two clients can hold one expert each.
    problem = AssignmentProblem([[0.9, 0.1], [0.9, 0.2]], [1, 1], [2, 2], [2, 2])
    answer = solve(problem, solver)
    # Every full assignment is two short, so fitness decides.
    assert answer.matrix.tolist() == [[True, False], [True, False]]
    assert answer.objective == pytest.approx(1.8)
    assert answer.relaxed == ("lower of expert 1 missed by 2: load 0, wanted 2",)


@pytest.mark.parametrize("solver", NAMES)
def test_more_holders_than_an_upper_bound_allows(solver: str) -> None:
    # Both clients need an expert of group 7, and that expert may have one holder.
    problem = AssignmentProblem(
        [[0.9, 0.5], [0.9, 0.1]], [2, 2], 0, [1, 2], groups=[7, 3]
    )
    answer = solve(problem, solver)
    # One is missed either way: the upper bound, by 1, or client 1's group, at a loss.
    assert answer.relaxed == ("upper of expert 0 missed by 1: load 2, wanted 1",)
    assert answer.objective == pytest.approx(2.4)


def test_nothing_is_relaxed_where_all_can_be_met() -> None:
    assert solve(AssignmentProblem(np.ones((4, 2)), [1] * 4, 2, 2)).relaxed == ()


def test_budgets_and_bans_hold_whatever_is_asked() -> None:
    problem = AssignmentProblem(
        np.ones((2, 3)), [1, 2], lower=2, upper=2, forbidden=[(0, 0)]
    )
    matrix = solve(problem).matrix
    assert (matrix.sum(axis=1) == [1, 2]).all()
    assert not matrix[0, 0]


def test_a_band_without_a_whole_number_in_it() -> None:
    # ceil(1.2) = 2 and floor(1.8) = 1: whatever the load, one of them is missed.
    answer = solve(AssignmentProblem(np.ones((3, 1)), [1] * 3, 1.2, 1.8))
    assert len(answer.relaxed) == 1
    assert answer.matrix.sum() == 2


def test_groups_are_named_as_the_caller_named_them() -> None:
    problem = AssignmentProblem([[0.9, 0.5]], [1], 0, 1, groups=[70, 30])
    assert solve(problem).relaxed == ("client 0 holds no expert of group 30",)


def test_a_fleet_of_misses_is_cut_short() -> None:
    problem = AssignmentProblem(np.ones((30, 2)), [1] * 30, 0, 30, groups=[0, 1])
    relaxed = solve(problem).relaxed
    assert relaxed[0].startswith("client 0 holds no expert of group")
    assert relaxed[-1] == "... and 22 more like this"
    assert len(relaxed) == 9
