"""The exact, order-free weighted mean."""

import sys
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.merging import exact_sums
from server_app.merging.means import Coordinates, ExactMean, PartMeans

VALUES = st.floats(-1e3, 1e3, width=32)


@pytest.fixture(scope="module", autouse=True, params=["numpy", "compiled"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have vectors of any length summed by numpy, or by the compiled loop."""
    with pytest.MonkeyPatch.context() as patch:
        least = 0 if request.param == "compiled" else 10**9
        patch.setattr(exact_sums, "_COMPILED", least)
        yield


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


def test_nobody_used_it_means_unchanged() -> None:
    model = {"expert.0": np.ones(2, np.float32), "expert.1": np.ones(2, np.float32)}
    sums = PartMeans()
    sums.add("expert.0", np.full(2, 0.5, np.float32), 0)
    sums.add("expert.1", np.full(2, 0.5, np.float32), 2)
    sums.apply(model)
    np.testing.assert_array_equal(model["expert.0"], [1, 1])
    np.testing.assert_array_equal(model["expert.1"], [1.5, 1.5])


def test_a_missing_expert_is_skipped_not_counted_as_zero() -> None:
    # Two clients, one holds the expert: its delta counts in full.
    model = {"extractor": np.zeros(1, np.float32), "expert.3": np.zeros(1, np.float32)}
    sums = PartMeans()
    sums.add("extractor", np.array([1.0], np.float32), 10)
    sums.add("expert.3", np.array([1.0], np.float32), 4)
    sums.add("extractor", np.array([4.0], np.float32), 20)
    sums.apply(model)
    assert model["extractor"][0] == 3.0
    assert model["expert.3"][0] == 1.0


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


FLEET = st.lists(
    st.tuples(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3),
        # Up to what 100 000 clients of 100 000 texts of 1 000 tokens add up to.
        st.one_of(st.integers(1, 10**13), st.floats(1e-3, 1e13)),
    ),
    min_size=1,
    max_size=4,
)


@given(vectors=FLEET, order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("kind", ["whole", "coordinates"])
def test_weights_of_the_largest_fleets_stay_exact_in_any_order(
    kind: str, vectors: list[tuple[list[float], float]], order: object
) -> None:
    def merged(items: list[tuple[list[float], float]]) -> np.ndarray:
        sums, model = PartMeans(), {"extractor": np.zeros(3, np.float32)}
        for values, weight in items:
            vector = np.array(values, np.float32)
            if kind == "whole":
                sums.add("extractor", vector, weight)
            else:
                sums.add(
                    "extractor", vector, weight, Coordinates(np.array([2, 0, 1]), 3)
                )
        sums.apply(model)
        result = model["extractor"]
        return result if kind == "whole" else result[[2, 0, 1]]

    shuffled = list(vectors)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    result = merged(vectors)
    np.testing.assert_array_equal(result, merged(shuffled))
    grid = [(values, Fraction(round(w * 2**16), 2**16)) for values, w in vectors]
    total = sum((weight for _, weight in grid), Fraction(0))
    for column, value in enumerate(result):
        weighted = [Fraction(values[column]) * weight for values, weight in grid]
        exact = sum(weighted, Fraction(0)) / max(total, Fraction(1, 2**16))
        # Where large values cancel, what a product of 53 bits leaves out of them.
        scale = max(abs(Fraction(x)) for values, _ in grid for x in values)
        assert abs(Fraction(float(value)) - exact) <= max(
            abs(exact) / 2**23, scale / 2**50, Fraction(1, 2**16)
        )


@pytest.mark.parametrize("clients", [2, 300])
def test_a_hundred_thousand_clients_of_a_hundred_thousand_texts(clients: int) -> None:
    # By arithmetic: the weight of all of them, in a few vectors.
    mean, vector = ExactMean(4), np.array([0.5, -0.5, 0, 0.1], np.float32)
    for _ in range(clients):
        mean.add(vector, 100_000 * 100_000 * 512 // clients)
    np.testing.assert_array_equal(mean.mean(), vector)


@given(kept=FLEET, dropped=FLEET, seed=st.integers(0, 9))
@pytest.mark.parametrize("kind", ["whole", "coordinates"])
def test_what_fails_half_way_is_taken_back_to_the_bit(
    kind: str,
    kept: list[tuple[list[float], float]],
    dropped: list[tuple[list[float], float]],
    seed: int,
) -> None:
    def add(sums: PartMeans, values: list[float], weight: float) -> None:
        vector = np.array(values, np.float32)
        if kind == "whole":
            sums.add("extractor", vector, weight)
        else:
            sums.add("extractor", vector, weight, Coordinates(np.array([2, 0, 1]), 3))

    def applied(sums: PartMeans) -> bytes:
        model = {"extractor": np.full(3, -0.0, np.float32)}
        sums.apply(model)
        return model["extractor"].tobytes()

    alone, disturbed = PartMeans(), PartMeans()
    place = seed % (len(kept) + 1)
    for number, (values, weight) in enumerate(kept):
        if number == place:
            with pytest.raises(KeyError), disturbed.whole():
                for item in dropped:
                    add(disturbed, *item)
                raise KeyError
        add(alone, values, weight)
        with disturbed.whole():
            add(disturbed, values, weight)
    assert applied(disturbed) == applied(alone)


def test_a_first_reply_that_is_taken_back_leaves_no_part() -> None:
    model = {"a": np.full(2, -0.0, np.float32), "b": np.full(2, -0.0, np.float32)}
    sums = PartMeans()
    with pytest.raises(KeyError), sums.whole():
        sums.add("a", np.ones(2, np.float32), 3)
        sums.add("b", np.ones(1, np.float32), 3, Coordinates(np.array([1]), 2))
        raise KeyError
    sums.apply(model)
    assert np.signbit(model["a"]).all() and np.signbit(model["b"]).all()


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


def test_a_part_is_merged_as_a_whole_or_by_coordinates_not_both() -> None:
    sums = PartMeans()
    sums.add("extractor", np.ones(2, np.float32), 1)
    with pytest.raises(TypeError, match="not both"):
        sums.add("extractor", np.ones(1, np.float32), 1, Coordinates(np.array([0]), 2))
    sums.add("gate", np.ones(1, np.float32), 1, Coordinates(np.array([0]), 2))
    with pytest.raises(TypeError, match="not both"):
        sums.add("gate", np.ones(2, np.float32), 1)
