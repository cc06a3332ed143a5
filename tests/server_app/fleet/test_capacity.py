"""Budgets from what limits them, against hand-computed numbers (docs/methods.md, 2)."""

import numpy as np

from server_app.fleet.capacity import affordable, budgets

COSTS = [40.0, 70.0, 100.0, 130.0]  # 10 whatever is held, and 30 for each expert


def test_a_declared_cap_wins_over_tier_and_limits() -> None:
    np.testing.assert_array_equal(budgets([2, 2, 2], [0, 1, 5], 4), [2, 1, 4])
    np.testing.assert_array_equal(budgets([2, 2], [0, 3], 4, [1, 1]), [1, 3])


def test_one_resource_by_hand() -> None:
    assert affordable(100, COSTS) == 3
    assert affordable(99, COSTS) == 2
    # A tenth is left unused: 90 of 100.
    assert affordable(100, COSTS, 0.1) == 2
    assert affordable(39, COSTS) == 0
    assert affordable(10**9, COSTS) == 4
    assert affordable(None, COSTS) == np.inf


def test_the_scarcest_resource_decides_and_the_tier_is_a_cap() -> None:
    memory, uplink = [3.0, np.inf, 0.0, np.inf], [5.0, 2.0, np.inf, np.inf]
    found = budgets([4] * 4, [0] * 4, 8, memory, uplink)
    np.testing.assert_array_equal(found, [3, 2, 0, 4])
