"""Sums with noise: what one client can change of them, and how large the noise is."""

import math
import os
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.gaussian_mechanism import clipped_units, noise_units
from common.grid import GRID
from common.wire import Packing, pack, unpack
from server_app.merging.exact_sums import ExactSums
from server_app.merging.means import Coordinates
from server_app.merging.noisy_sums import PrivateSums

SHAPES = {"extractor": (3, 4), "expert.0": (2, 3), "expert.1": (2, 3), "bias": (5,)}
SIZES = {part: math.prod(shape) for part, shape in SHAPES.items()}
LAYOUTS = {part: (("w", shape),) for part, shape in SHAPES.items()}
DTYPES = st.sampled_from(["float32", "float16", "int8"])
VALUES = st.floats(allow_nan=False, allow_infinity=False, width=32)
CLIPS = st.floats(1e-3, 1000.0)

Reply = dict[str, np.ndarray]


def nothing(count: int) -> bytes:
    """Return bytes of which every noise is 0: its tail is half of all."""
    return b"\xff" * count


def vector(size: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(VALUES, min_size=size, max_size=size).map(
        lambda values: np.array(values, dtype=np.float32)
    )


@st.composite
def replies(draw: Any) -> Reply:
    """Draw what one client ships, any parts, as the server reads it."""
    held = draw(st.sets(st.sampled_from([*SHAPES]), min_size=1))
    sent = {part: draw(vector(SIZES[part])) for part in sorted(held)}
    packing = Packing(dtype=draw(DTYPES), layouts=LAYOUTS)
    if packing.dtype == "int8":  # whose scales have a largest value
        sent = {part: values.clip(-1e36, 1e36) for part, values in sent.items()}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return unpack(pack(sent, packing, rng), packing)


def integers(sums: ExactSums) -> list[int]:
    """Return the sums in units of the grid, exactly."""
    high = [0] * sums.size if sums._high is None else sums._high.tolist()
    low = (sums._low - sums._rounders).tolist()
    return [int(h) * 2**32 + int(n) for h, n in zip(high, low, strict=True)]


def summed(fleet: list[Reply], clip: float) -> dict[str, list[int]]:
    """Return the noiseless sums of a fleet, as integers."""
    sums = PrivateSums(clip, 1.0)
    sums.expect(SIZES, dict.fromkeys(SIZES, 1.0))
    for reply in fleet:
        with sums.whole():
            for part, delta in reply.items():
                sums.add(part, delta, weight=7.0)
    return {part: integers(each) for part, each in sums._sums.items()}


@given(fleet=st.lists(replies(), min_size=1, max_size=4), clip=CLIPS)
def test_one_client_changes_all_sums_together_by_no_more_than_c(
    fleet: list[Reply], clip: float
) -> None:
    with_it, without = summed(fleet, clip), summed(fleet[:-1], clip)
    differences = [
        a - b
        for part in SIZES
        for a, b in zip(with_it[part], without[part], strict=True)
    ]
    squared = sum(each**2 for each in differences)
    assert squared <= (Fraction(clip) * int(GRID)) ** 2  # of integers: exactly


@given(fleet=st.lists(replies(), min_size=2, max_size=4), clip=CLIPS)
def test_any_order_of_the_replies_gives_the_same_sums(
    fleet: list[Reply], clip: float
) -> None:
    assert summed(fleet, clip) == summed(fleet[::-1], clip)


@given(reply=replies(), clip=CLIPS)
def test_what_is_within_c_counts_in_full(reply: Reply, clip: float) -> None:
    norm, units = clipped_units(reply, clip)
    exact = sum(Fraction(float(v)) ** 2 for each in reply.values() for v in each)
    assert exact <= Fraction(norm) ** 2
    kept = 1.0 if norm <= clip else clip / norm
    for part, values in units.items():
        expected = reply[part].astype(np.float64) * kept * GRID
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1.0)


def test_parts_are_clipped_together_and_divided_by_who_was_planned() -> None:
    sums = PrivateSums(1.0, 1.0, nothing)
    sums.expect({"a": 1, "b": 1, "c": 1}, {"a": 4.0, "b": 2.0, "c": 1.0})
    with sums.whole():  # norm 5, so a fifth of it counts
        sums.add("a", np.array([3.0], np.float32), weight=1e9)
        sums.add("b", np.array([-4.0], np.float32), weight=0.0)
    with sums.whole():  # norm 1/2: all of it
        sums.add("a", np.array([0.5], np.float32), weight=1.0)
    model = {part: np.array([10.0], np.float32) for part in ("a", "b", "c", "d")}
    sums.apply(model)
    moved = {part: float(values[0]) - 10 for part, values in model.items()}
    assert moved == pytest.approx(
        {"a": (0.6 + 0.5) / 4, "b": -0.8 / 2, "c": 0, "d": 0}, abs=1e-6
    )


def test_a_client_that_sends_zeros_is_a_client_that_sends_nothing() -> None:
    nobody = {"bias": np.zeros(5, np.float32)}
    assert summed([nobody], 1.0) == summed([], 1.0)


def test_noise_has_the_variance_of_the_closed_form() -> None:
    size, clip, multiplier, holders = 200_000, 0.5, 3.0, 4.0
    rng = np.random.default_rng(1)
    sums = PrivateSums(clip, multiplier, rng.bytes)
    sums.expect({"a": size}, {"a": holders})
    model = {"a": np.zeros(size, np.float32), "b": np.ones(3, np.float32)}
    sums.apply(model)  # nobody has answered
    deviation = multiplier * clip / holders
    moved = model["a"].astype(np.float64) / deviation
    # The mean of n squares of standard normals has variance 2 / n.
    assert abs(np.square(moved).mean() - 1) < 5 * math.sqrt(2 / size)
    assert abs(moved.mean()) < 5 / math.sqrt(size)
    assert stats.kstest(moved, "norm").pvalue > 1e-3
    np.testing.assert_array_equal(model["b"], np.ones(3))  # planned for nobody


def test_parts_get_noise_that_is_independent() -> None:
    rng = np.random.default_rng(2)
    sums = PrivateSums(1.0, 1.0, rng.bytes)
    sums.expect({"a": 50_000, "b": 50_000}, {"a": 1.0, "b": 1.0})
    model = {part: np.zeros(50_000, np.float32) for part in "ab"}
    sums.apply(model)
    assert abs(np.corrcoef(model["a"], model["b"])[0, 1]) < 5 / math.sqrt(50_000)


def test_the_operating_system_makes_it() -> None:
    assert PrivateSums(1.0, 1.0)._random_bytes is os.urandom
    one, other = (noise_units(8, 1.0, os.urandom) for _ in range(2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("adds", "error"),
    [
        ([("a", 2), ("a", 2)], "twice"),
        ([("z", 2)], "z was planned for nobody"),
        ([("a", 3)], "a has shape"),
    ],
)
def test_what_would_count_for_more_than_one_client_counts_nothing(
    adds: list[tuple[str, int]], error: str
) -> None:
    sums = PrivateSums(1.0, 1.0, nothing)
    sums.expect({"a": 2}, {"a": 1.0})
    with pytest.raises(ValueError, match=error), sums.whole():
        for part, size in adds:
            sums.add(part, np.ones(size, np.float32), 1.0)
    model = {"a": np.zeros(2, np.float32)}
    sums.apply(model)
    np.testing.assert_array_equal(model["a"], [0, 0])


def test_values_that_are_not_finite_count_nothing() -> None:
    sums = PrivateSums(1.0, 1.0, nothing)
    sums.expect({"a": 2}, {"a": 1.0})
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"), sums.whole():
            sums.add("a", np.array([1.0, bad], np.float32), 1.0)
    assert integers(sums._sums["a"]) == [0, 0]


def test_nothing_is_summed_outside_of_a_reply_and_nothing_released_twice() -> None:
    sums = PrivateSums(1.0, 1.0, nothing)
    sums.expect({"a": 1}, {"a": 1.0})
    with pytest.raises(RuntimeError, match="outside of a reply"):
        sums.add("a", np.ones(1, np.float32), 1.0)
    with pytest.raises(ValueError, match="only in part"), sums.whole():
        at = Coordinates(np.array([0]), 2)
        sums.add("a", np.ones(1, np.float32), 1.0, at)
    model = {"a": np.zeros(1, np.float32)}
    sums.apply(model)
    with pytest.raises(RuntimeError, match="no round was planned"):
        sums.apply(model)


def test_noise_that_has_no_whole_numbers_left_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        PrivateSums(1000.0, 1000.0)
