"""Budgets from what limits them, against hand-computed numbers (METHODS 2)."""

import numpy as np

from server_app.capacity import budgets, profile_budgets, resource_budget


def test_a_declared_cap_wins_over_the_tier() -> None:
    np.testing.assert_array_equal(budgets([2, 2, 2], [0, 1, 5], 4), [2, 1, 4])


def test_one_resource_by_hand() -> None:
    # 100 MB at 30 MB an expert: 3; with a tenth left unused 90 / 30 = 3; 89 / 30 = 2.
    np.testing.assert_array_equal(resource_budget([100, 0], 30), [3, np.inf])
    np.testing.assert_array_equal(resource_budget([100, 98.8], 30, 0.1), [3, 2])


def test_the_scarcest_resource_decides_and_one_expert_always_fits() -> None:
    memory, uplink = np.array([3.0, np.inf, 0.0]), np.array([5.0, 2.0, np.inf])
    np.testing.assert_array_equal(profile_budgets([4, 4, 4], memory, uplink), [3, 2, 1])
