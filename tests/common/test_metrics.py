"""Balance and means against hand-computed numbers."""

import math

import pytest

from common.metrics import coefficient_of_variation, weighted_mean, worst_tenth


def test_cv_by_hand() -> None:
    # mean 4, deviations -2 and 2: std 2.
    assert coefficient_of_variation([2, 6]) == pytest.approx(0.5)
    assert coefficient_of_variation([5, 5, 5]) == 0
    assert coefficient_of_variation([0, 0]) == 0


def test_the_worst_tenth_is_at_least_one() -> None:
    assert worst_tenth([0.5, 0.1, 0.9]) == 0.1
    assert worst_tenth([i / 20 for i in range(20)]) == pytest.approx(0.025)
    assert math.isnan(worst_tenth([]))


def test_a_weighted_mean_needs_weight() -> None:
    assert weighted_mean([0.5, 1.0], [1, 3]) == 0.875
    assert weighted_mean([0.5], [0]) is None
    assert weighted_mean([], []) is None
