"""Bad input is refused by name; good input is stored as documented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server_app.assignment import AssignmentProblem, solve


def problem(**changes: Any) -> AssignmentProblem:
    arguments: dict[str, Any] = {
        "fitness": [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]],
        "capacity": [1, 2],
        "lower": [0, 0, 0],
        "upper": [2, 2, 2],
    }
    return AssignmentProblem(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fitness": [[0.1, np.nan, 0], [0, 0, 0]]}, "client 0 for expert 1 is nan"),
        ({"fitness": [0.1, 0.2]}, r"fitness has shape \(2,\)"),
        ({"fitness": np.zeros((0, 3))}, "at least one of each"),
        ({"capacity": [1, -1]}, "capacity of client 1 is -1.0: expected .* >= 0"),
        ({"capacity": [1.5, 1]}, "capacity of client 0 is 1.5: expected a whole"),
        ({"capacity": [1]}, r"capacity has shape \(1,\): expected \(2,\), one per c"),
        ({"lower": [0, 3, 0]}, "lower of expert 1 is 3, above its upper 2"),
        ({"upper": [2, 2, np.inf]}, "upper of expert 2 is inf"),
        ({"sizes": [5, 0, 5]}, "sizes of expert 1 is 0.0"),
        ({"load_weights": [1, -2]}, "load_weights of client 1 is -2.0"),
        ({"switching_cost": [0, 0, -1]}, "switching_cost of expert 2 is -1.0"),
        ({"load_penalty": -1.0}, "load_penalty is -1.0"),
        ({"forbidden": [(0, 3)]}, "forbidden names expert 3: there are 3"),
        ({"pinned": [(2, 0)]}, "pinned names client 2: there are 2"),
        ({"forbidden": np.zeros((3, 2), bool)}, r"forbidden has shape \(3, 2\)"),
        ({"pinned": [0, 1]}, "pinned must be a boolean mask"),
        ({"exclusive": [[0, 7]]}, r"exclusive\[0\] names expert 7"),
        ({"exclusive": [[0, 1], [2, 2]]}, r"exclusive\[1\] names an expert twice"),
        ({"floor": "fair"}, "floor is 'fair'"),
        ({"floor": [0, -1]}, "floor of client 1 is -1.0"),
        ({"min_holders": [0, 0.5, 0]}, "min_holders of expert 1 is 0.5"),
        ({"groups": [0, 0]}, r"groups has shape \(2,\)"),
    ],
)
def test_errors_name_the_culprit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problem(**changes)


def test_arrays_are_copied_and_read_only() -> None:
    fitness = np.ones((1, 2))
    stored = AssignmentProblem(fitness, [1], 0, 1)
    fitness[:] = 7.0
    assert stored.fitness.tolist() == [[1.0, 1.0]]
    assert stored.upper.tolist() == [1.0, 1.0]  # a scalar is one value per expert
    with pytest.raises(ValueError, match="read-only"):
        stored.fitness[0, 0] = 2.0


def test_pairs_and_masks_mean_the_same() -> None:
    mask = np.zeros((2, 3), dtype=bool)
    mask[1, 2] = True
    by_pair, by_mask = problem(forbidden=[(1, 2)]), problem(forbidden=mask)
    nothing = problem(forbidden=[])
    for stored, wanted in ((by_pair, mask), (by_mask, mask), (nothing, mask & False)):
        assert stored.forbidden is not None
        assert np.array_equal(stored.forbidden, wanted)


def test_replace_widens_bounds() -> None:
    wider = replace(problem(lower=[1, 1, 1], upper=[1, 1, 1]), upper=np.full(3, 2.0))
    assert wider.upper.tolist() == [2.0, 2.0, 2.0]
    assert wider.lower.tolist() == [1.0, 1.0, 1.0]


def test_load_counts_or_weighs() -> None:
    held = np.array([[1, 1, 0], [0, 1, 0]], dtype=bool)
    assert problem().load(held).tolist() == [1.0, 2.0, 0.0]
    weighted = problem(load_weights=[10, 3])
    assert weighted.load(held).tolist() == [10.0, 13.0, 0.0]


def test_capacity_is_a_ceiling_unless_a_floor_fills_it() -> None:
    free = problem(fitness=[[0.5, -0.1, -0.2], [0.5, 0.5, 0.5]], capacity=[2, 2])
    assert solve(free).matrix[0].tolist() == [True, False, False]
    filled = replace(free, floor=free.capacity)
    assert solve(filled).matrix[0].tolist() == [True, True, False]


def test_switching_cost_keeps_last_rounds_experts() -> None:
    before = [[True, False, False], [False, True, True]]
    close = {"fitness": [[0.5, 0.55, 0.3], [0.5, 0.4, 0.4]], "previous": before}
    # Client 0 would gain 0.05 and pay 0.1; client 1 would gain 0.1 and pay 0.1 or less.
    assert solve(problem(**close, switching_cost=0.1)).matrix[0].tolist() == before[0]
    free = solve(problem(**close, switching_cost=0.0)).matrix
    assert free[0].tolist() == [False, True, False]
    # By expert: shipping expert 1 is cheap, shipping expert 0 is not.
    dear = solve(problem(**close, switching_cost=[0.2, 0.01, 0.0])).matrix
    assert dear.tolist() == [[False, True, False], [False, True, True]]


def test_load_penalty_is_quadratic_in_the_distance_to_the_target() -> None:
    # Three clients prefer expert 0 by 0.3 each: loads 3/0 pay 2 * 1.5**2 * w = 4.5 w,
    # loads 2/1 pay 0.5 w, so the second client moves once 4 w > 0.3.
    case: dict[str, Any] = {"fitness": [[0.8, 0.5]] * 3, "capacity": [1] * 3}
    case |= {"lower": 0, "upper": 3}
    for weight, loads in ((0.07, [3, 0]), (0.08, [2, 1])):
        answer = solve(AssignmentProblem(**case, load_penalty=weight))
        assert answer.matrix.sum(axis=0).tolist() == loads
    assert answer.objective == pytest.approx(2 * 0.8 + 0.5 - 0.5 * 0.08)
