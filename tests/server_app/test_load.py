"""Deficits, targets and bounds against hand-computed numbers (METHODS 1)."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.load import (
    adjusted_target,
    band,
    dynamic_bounds,
    expected_bounds,
    lower_bounds_feasible,
    updated_deficit,
)


def test_deficit_integrates_what_an_expert_missed() -> None:
    # Loads 4, 1, 1: mean 2, so the first is 2 over and the others 1 under.
    deficit = updated_deficit(np.zeros(3), [4, 1, 1], decay=1.0, limit=10)
    np.testing.assert_array_equal(deficit, [-2, 1, 1])
    deficit = updated_deficit(deficit, [2, 2, 2], decay=1.0, limit=10)
    np.testing.assert_array_equal(deficit, [-2, 1, 1])
    deficit = updated_deficit(deficit, [2, 2, 2], decay=0.5, limit=10)
    np.testing.assert_array_equal(deficit, [-1, 0.5, 0.5])


def test_deficit_is_clipped_against_wind_up() -> None:
    deficit = updated_deficit(np.array([9.0, -9.0]), [0, 4], decay=1.0, limit=10)
    np.testing.assert_array_equal(deficit, [10, -10])


def test_drop_out_makes_no_expert_look_neglected() -> None:
    np.testing.assert_array_equal(
        updated_deficit(np.zeros(2), [1, 1], decay=1.0, limit=20), [0, 0]
    )


def test_target_is_the_fair_share_plus_the_weighted_deficit() -> None:
    # L* = (2 + 2 + 4) / 4 = 2 with three participants.
    deficit = np.array([0.0, 1.0, -3.0, 5.0])
    np.testing.assert_array_equal(
        adjusted_target([2, 2, 4], deficit, gain=0.5), [2, 2.5, 0.5, 3]
    )
    np.testing.assert_array_equal(
        adjusted_target([2, 2, 4], deficit, gain=0.0), [2, 2, 2, 2]
    )


def test_band_of_the_paper_setting() -> None:
    # C=20, k=2, E=8: L* = 5, delta = 0.1: floor(4.5) = 4, ceil(5.5) = 6.
    bounds = band(np.full(8, 5.0), 0.1, participants=20)
    np.testing.assert_array_equal(bounds.lower, np.full(8, 4))
    np.testing.assert_array_equal(bounds.upper, np.full(8, 6))


def test_whole_targets_get_whole_bands_despite_float_noise() -> None:
    # 1.1 * 10 is 11.000000000000002 in floats; the band must end at 11.
    bounds = band(np.array([10.0]), 0.1, participants=20)
    assert (bounds.lower[0], bounds.upper[0]) == (9, 11)


def test_upper_bound_never_exceeds_the_participants() -> None:
    assert band(np.array([5.0]), 0.5, participants=6).upper[0] == 6


@given(
    lower=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    capacity=st.lists(st.integers(0, 3), min_size=1, max_size=3),
)
def test_feasibility_agrees_with_brute_force(
    lower: list[int], capacity: list[int]
) -> None:
    rows = [
        [r for r in itertools.product((0, 1), repeat=len(lower)) if sum(r) <= k]
        for k in capacity
    ]
    possible = any(
        all(
            sum(column) >= low
            for column, low in zip(zip(*x, strict=True), lower, strict=True)
        )
        for x in itertools.product(*rows)
    )
    assert lower_bounds_feasible(lower, capacity) == possible


@given(
    capacity=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    deficit=st.lists(st.floats(-12, 12), min_size=4, max_size=8),
    gain=st.floats(0, 2),
)
def test_dynamic_bounds_are_always_feasible(
    capacity: list[int], deficit: list[float], gain: float
) -> None:
    bounds = dynamic_bounds(capacity, np.array(deficit), tolerance=0.1, gain=gain)
    assert lower_bounds_feasible(bounds.lower, capacity)
    assert np.all(bounds.lower <= bounds.upper)
    assert bounds.tolerance >= 0.1


def test_a_band_that_does_not_fit_is_widened_and_says_so() -> None:
    # One client cannot hold 4 experts with a budget of 1: L* = 0.25 plus a deficit of
    # 1 each asks for a holder of every expert.
    bounds = dynamic_bounds([1], np.ones(4), tolerance=0.0, gain=1.0)
    assert bounds.tolerance > 0
    np.testing.assert_array_equal(bounds.lower, np.zeros(4))


def test_no_deficit_gain_is_the_paper_ablation() -> None:
    bounds = dynamic_bounds([2] * 20, np.arange(8.0), tolerance=0.1, gain=0.0)
    np.testing.assert_array_equal(bounds.lower, np.full(8, 4))


@pytest.mark.parametrize("rounds", [50])
def test_integrator_repays_a_rounded_target_over_time(rounds: int) -> None:
    # 5 clients of budget 1, 2 experts: L* = 2.5 cannot be met in any round, but the
    # cumulated loads must stay within one of each other.
    deficit, total = np.zeros(2), np.zeros(2)
    for _ in range(rounds):
        bounds = dynamic_bounds([1] * 5, deficit, tolerance=0.0, gain=1.0)
        load = bounds.lower.astype(float)
        load[np.argmax(bounds.upper - load)] += 5 - load.sum()
        total += load
        deficit = updated_deficit(deficit, load, decay=1.0, limit=5)
    assert abs(total[0] - total[1]) <= 1


def test_expected_bounds_count_a_flaky_client_by_its_chance() -> None:
    # Two sure clients and two that answer half the time, two experts each, E = 2:
    # (1 + 1 + .5 + .5) * 2 / 2 = 3 expected holders; slack of half a sure client.
    lower, upper = expected_bounds(
        [2, 2, 2, 2], [1, 1, 0.5, 0.5], np.zeros(2), tolerance=0.0, gain=1.0
    )
    np.testing.assert_allclose(lower, [2.5, 2.5])
    np.testing.assert_allclose(upper, [3.5, 3.5])


def test_expected_bounds_repay_a_deficit_and_stay_possible() -> None:
    lower, upper = expected_bounds(
        [1, 1], [1.0, 0.5], np.array([5.0, -5.0]), tolerance=0.0, gain=1.0
    )
    # Targets .75 +- 5, clipped to 0 and the 1.5 replies that can be expected at all.
    np.testing.assert_allclose(lower, [1.0, 0.0])
    np.testing.assert_allclose(upper, [2.0, 0.5])
