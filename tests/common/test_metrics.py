"""Balance measures against hand-computed numbers."""

import pytest

from common.metrics import coefficient_of_variation, gini


def test_cv_by_hand() -> None:
    # mean 4, deviations -2 and 2: std 2.
    assert coefficient_of_variation([2, 6]) == pytest.approx(0.5)
    assert coefficient_of_variation([5, 5, 5]) == 0
    assert coefficient_of_variation([0, 0]) == 0


def test_gini_by_hand() -> None:
    assert gini([1, 1, 1, 1]) == pytest.approx(0)
    # One of four has all: (n - 1) / n.
    assert gini([0, 0, 0, 8]) == pytest.approx(0.75)
    # Loads 1 and 3: mean absolute difference 1 over twice the mean 2.
    assert gini([1, 3]) == pytest.approx(0.25)
    assert gini([0, 0]) == 0
