"""The exact, order-free sum of whole vectors, and where its range ends."""

import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.merging import exact_sums
from server_app.merging.means import ExactMean

pytestmark = pytest.mark.usefixtures("way")


VALUES = st.floats(-1e3, 1e3, width=32)


def test_weighted_mean_by_hand() -> None:
    mean = ExactMean(2)
    mean.add(np.array([1.0, 2.0], np.float32), 1)
    mean.add(np.array([4.0, -1.0], np.float32), 3)
    np.testing.assert_array_equal(mean.mean(), np.array([3.25, -0.25], np.float32))


@given(
    vectors=st.lists(
        st.tuples(st.lists(VALUES, min_size=3, max_size=3), st.integers(1, 10_000)),
        min_size=1,
        max_size=8,
    ),
    order=st.randoms(use_true_random=False),
)
def test_any_order_gives_the_same_bits_and_the_true_mean(
    vectors: list[tuple[list[float], int]], order: object
) -> None:
    def merged(items: list[tuple[list[float], int]]) -> np.ndarray:
        mean = ExactMean(3)
        for values, weight in items:
            mean.add(np.array(values, np.float32), weight)
        result = mean.mean()
        assert result is not None
        return result

    shuffled = list(vectors)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(merged(vectors), merged(shuffled))
    total = sum(weight for _, weight in vectors)
    for column, value in enumerate(merged(vectors)):
        weighted = [Fraction(values[column]) * weight for values, weight in vectors]
        exact = sum(weighted, Fraction(0)) / total
        assert abs(Fraction(float(value)) - exact) <= max(
            abs(exact) * Fraction(1, 2**23), Fraction(1, 2**30)
        )


def test_vectors_longer_than_a_chunk() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, 600_001)).astype(np.float32)
    mean = ExactMean(600_001)
    for vector, weight in zip(vectors, (1, 2, 5), strict=True):
        mean.add(vector, weight)
    expected = np.average(vectors.astype(np.float64), axis=0, weights=[1, 2, 5])
    result = mean.mean()
    assert result is not None
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_fractional_weights_are_order_free_too() -> None:
    weights = [0.1, 0.2, 0.3, 1e-5, 7.7]
    vectors = [np.array([float(i)], np.float32) for i in range(5)]
    forward, backward = ExactMean(1), ExactMean(1)
    for vector, weight in zip(vectors, weights, strict=True):
        forward.add(vector, weight)
    for vector, weight in zip(vectors[::-1], weights[::-1], strict=True):
        backward.add(vector, weight)
    mean = forward.mean()
    assert mean is not None
    np.testing.assert_array_equal(mean, backward.mean())
    assert mean == pytest.approx(np.average(range(5), weights=weights), 1e-4)
    assert forward.mean() is None  # used up


def test_values_in_and_out_of_the_compiled_range_share_a_sum() -> None:
    # A weighted value of 2**19 and more leaves the range of the compiled loop.
    rng = np.random.default_rng(3)
    small = rng.normal(scale=0.01, size=501).astype(np.float32)
    half = np.array([0.5, 1.5, -0.5, -2.5] * 125 + [0], np.float32)
    half *= np.float32(2**-32)
    large = rng.normal(scale=1e5, size=501).astype(np.float32)
    mean = ExactMean(501)
    total = np.zeros(501, dtype=object)
    for vector, weight in ((small, 37), (half, 1), (large, 11), (-small, 3)):
        mean.add(vector, weight)
        grid = np.rint(vector.astype(np.float64) * weight * 2.0**32)
        total += [int(value) for value in grid]
    expected = [value / (2.0**32 * 52) for value in total]
    np.testing.assert_array_equal(mean.mean(), np.array(expected, np.float32))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        ExactMean(1).add(np.zeros(1, np.float32), weight)


@pytest.mark.parametrize("value", [1e17, -3e38, np.inf, -np.inf, np.nan, -np.nan])
def test_what_leaves_the_range_is_refused_and_leaves_no_trace(value: float) -> None:
    mean = ExactMean(3)
    mean.add(np.array([1.0, -2.0, 0.5], np.float32), 3)
    with pytest.raises(ValueError, match="range of the exact sum"):
        mean.add(np.array([5.0, value, -7.0], np.float32), 1_000)
    mean.add(np.array([2.0, 2.0, 0.25], np.float32), 1)
    # (3 + 2) / 4, (-6 + 2) / 4, (1.5 + .25) / 4
    np.testing.assert_array_equal(mean.mean(), np.array([1.25, -1, 0.4375], np.float32))


def test_a_sum_of_64_bits_that_fills_up_is_carried() -> None:
    # 2**62 / 2**32 = 2**30: two vectors of 2**28 fit, with 2**29 more it is full.
    mean = ExactMean(2)
    for _ in range(2):
        mean.add(np.array([2.0**28, -1], np.float32), 1)
    mean.add(np.array([2.0**29, -1], np.float32), 1)
    mean.add(np.array([-(2.0**27), 5], np.float32), 4)
    expected = np.array([2.0**29 / 7, 17 / 7], np.float32)
    np.testing.assert_array_equal(mean.mean(), expected)


def test_many_small_vectors_fill_64_bits_as_well() -> None:
    # Each is 2**50 on the grid: with 2**12 of them it is full.
    mean, vector = ExactMean(1), np.array([2.0**18], np.float32)
    for _ in range(2**12 + 5):
        mean.add(vector, 1)
    np.testing.assert_array_equal(mean.mean(), vector)


@pytest.mark.parametrize("clients", [2, 300])
def test_a_hundred_thousand_clients_of_a_hundred_thousand_texts(clients: int) -> None:
    # By arithmetic: the weight of all of them, in a few vectors.
    mean, vector = ExactMean(4), np.array([0.5, -0.5, 0, 0.1], np.float32)
    for _ in range(clients):
        mean.add(vector, 100_000 * 100_000 * 512 // clients)
    np.testing.assert_array_equal(mean.mean(), vector)


def test_without_numba_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(5).normal(size=(3, 1001)).astype(np.float32)

    def merged() -> bytes:
        mean = ExactMean(1001)
        for weight, vector in enumerate(vectors, start=3):
            mean.add(vector, weight)
        found = mean.mean()
        assert found is not None
        return found.tobytes()

    before = merged()
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "server_app.merging.rounded_sum", raising=False)
    monkeypatch.delattr("server_app.merging.rounded_sum", raising=False)
    exact_sums._compiled_loop.cache_clear()
    try:
        assert merged() == before
        assert exact_sums._compiled_loop() is None
    finally:
        exact_sums._compiled_loop.cache_clear()


@pytest.mark.parametrize("value", [2.0**19, np.nextafter(np.float32(2**19), 0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_both_sides_of_where_the_compiled_range_ends(value: float, sign: int) -> None:
    mean = ExactMean(2)
    vector = np.array([sign * value, 0.75], np.float32)
    mean.add(vector, 1)
    np.testing.assert_array_equal(mean.mean(), vector)


def test_views_are_merged_as_their_values() -> None:
    whole = np.arange(20, dtype=np.float32)
    packed = b"x" + whole.tobytes()  # read-only, and not at a multiple of four bytes
    for view in (whole[::2], np.frombuffer(packed, np.float32, offset=1)):
        mean = ExactMean(view.size)
        mean.add(view, 2)
        np.testing.assert_array_equal(mean.mean(), view)


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        ExactMean(3).add(np.zeros(2, np.float32), 1)
