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
        ({"forbidden": [(0, 3)]}, "forbidden names expert 3: there are 3"),
        ({"forbidden": [(2, 0)]}, "forbidden names client 2: there are 2"),
        ({"forbidden": np.zeros((3, 2), bool)}, r"forbidden has shape \(3, 2\)"),
        ({"forbidden": [0, 1]}, "forbidden must be a boolean mask"),
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


def test_capacity_is_a_ceiling() -> None:
    free = problem(fitness=[[0.5, -0.1, -0.2], [0.5, 0.5, 0.5]], capacity=[2, 2])
    assert solve(free).matrix[0].tolist() == [True, False, False]
    # A lower bound fills it.
    owed = replace(free, lower=np.array([0.0, 2.0, 0.0]))
    assert solve(owed).matrix[0].tolist() == [True, True, False]
