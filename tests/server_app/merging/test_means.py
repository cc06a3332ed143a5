"""Means of parts: who has no part counts for nothing; what fails leaves no trace."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.merging.means import Coordinates, PartMeans

pytestmark = pytest.mark.usefixtures("way")


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


def test_a_part_is_merged_as_a_whole_or_by_coordinates_not_both() -> None:
    sums = PartMeans()
    sums.add("extractor", np.ones(2, np.float32), 1)
    with pytest.raises(TypeError, match="not both"):
        sums.add("extractor", np.ones(1, np.float32), 1, Coordinates(np.array([0]), 2))
    sums.add("gate", np.ones(1, np.float32), 1, Coordinates(np.array([0]), 2))
    with pytest.raises(TypeError, match="not both"):
        sums.add("gate", np.ones(2, np.float32), 1)
