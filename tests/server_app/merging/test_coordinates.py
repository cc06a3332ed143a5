"""The exact mean of each coordinate over those that hold it."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.merging.means import ExactMean

pytestmark = pytest.mark.usefixtures("way")


VALUES = st.floats(-1e3, 1e3, width=32)


def test_each_coordinate_is_averaged_over_its_holders() -> None:
    mean = ExactMean(4, by_coordinate=True)
    mean.add(np.array([1.0, 2.0], np.float32), 1, np.array([0, 1]))
    mean.add(np.array([6.0, 5.0], np.float32), 3, np.array([1, 2]))
    # (2 + 3 * 6) / 4 = 5 where both held it; nobody held the last one.
    np.testing.assert_array_equal(mean.mean(), np.array([1, 5, 5, 0], np.float32))


@given(
    holders=st.lists(
        st.tuples(st.sets(st.integers(0, 5), min_size=1), st.integers(1, 500), VALUES),
        min_size=1,
        max_size=6,
    )
)
def test_coordinates_in_any_order_give_the_same_bits_and_the_true_mean(
    holders: list[tuple[set[int], int, float]],
) -> None:
    def merged(items: list[tuple[set[int], int, float]]) -> np.ndarray:
        mean = ExactMean(6, by_coordinate=True)
        for where, weight, value in items:
            vector = np.full(len(where), value, np.float32)
            mean.add(vector, weight, np.array(sorted(where)))
        found = mean.mean()
        assert found is not None
        return found

    result = merged(holders)
    np.testing.assert_array_equal(result, merged(holders[::-1]))
    for column in range(6):
        mine = [(Fraction(v), w) for where, w, v in holders if column in where]
        total = sum(weight for _, weight in mine)
        exact = sum((v * w for v, w in mine), Fraction(0)) / max(total, 1)
        assert abs(Fraction(float(result[column])) - exact) <= max(
            abs(exact) * Fraction(1, 2**23), Fraction(1, 2**30)
        )


def test_coordinates_longer_than_a_chunk() -> None:
    positions = np.random.default_rng(0).permutation(100_001)[:90_000]
    values = np.random.default_rng(1).normal(size=90_000).astype(np.float32)
    mean = ExactMean(100_001, by_coordinate=True)
    mean.add(values, 7, positions)
    found = mean.mean()
    assert found is not None
    np.testing.assert_allclose(found[positions], values, rtol=1e-6, atol=1e-9)
