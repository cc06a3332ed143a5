"""Deficits, targets and bounds against hand-computed numbers (docs/methods.md, 1)."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.load import (
    adjusted_target,
    band,
    dynamic_bounds,
    lower_bounds_feasible,
    updated_deficit,
    widened,
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


@pytest.mark.parametrize(
    ("target", "tolerance", "edges"),
    [
        # In floats 1.1 * 10 is 11.000000000000002 and (1 - 0.8) * 10 just below 2.
        (10.0, 0.1, (9, 11)),
        (10.0, 0.8, (2, 18)),
        # A target that is whole but for noise, as sums of deficits are.
        (5 - 1e-12, 0.0, (5, 5)),
        (5 + 1e-12, 0.0, (5, 5)),
        (5 - 1e-12, 0.2, (4, 6)),
        # What is more than noise counts.
        (4.99, 0.0, (4, 5)),
    ],
)
def test_whole_targets_get_whole_bands_despite_float_noise(
    target: float, tolerance: float, edges: tuple[int, int]
) -> None:
    bounds = band(np.array([target]), tolerance, participants=20)
    assert (bounds.lower[0], bounds.upper[0]) == edges


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
    np.testing.assert_array_equal(bounds.lower, np.zeros(4))
    # The target is clipped to 1, the one participant; floor(0.95 * 1) = 0.
    [note] = widened(bounds, 0.0)
    assert note.startswith("load-tolerance widened from 0 to 0.05: ")
    assert widened(bounds, bounds.tolerance) == ()


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
