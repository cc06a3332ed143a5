"""Clipping and noise on the grid: rounding that never says more than it should."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from common.gaussian_mechanism import MOST_NOISE, gaussian, joint_norm, noise_units
from common.grid import GRID


def test_noise_is_of_whole_units_up_to_the_largest_that_is_allowed() -> None:
    zeros = noise_units(1, MOST_NOISE, lambda count: b"\x00" * count)
    ones = noise_units(1, MOST_NOISE, lambda count: b"\x01" + b"\x00" * (count - 1))
    for [furthest] in (zeros, ones):
        assert 8 * MOST_NOISE * GRID < abs(furthest) < 2**53
    assert zeros == -ones
    some = noise_units(1000, 1e-3, np.random.default_rng(0).bytes)
    np.testing.assert_array_equal(some, np.rint(some))


@pytest.mark.parametrize("share", [0.025, 0.16, 0.5 - 1e-9, 1e-12])
def test_noise_is_the_normal_quantile_of_the_random_bits(share: float) -> None:
    word = (int(share * 2**64) << 1) % 2**64  # the lowest bit is the sign
    [value] = gaussian(1, lambda count: word.to_bytes(8, "little"))
    assert value == pytest.approx(stats.norm.ppf(share), rel=1e-6)
    [other] = gaussian(1, lambda count: (word | 1).to_bytes(8, "little"))
    assert other == -value


def test_the_norm_is_rounded_up() -> None:
    for size, seed in itertools.product((1, 7, 1000), range(5)):
        values = np.random.default_rng(seed).normal(size=size).astype(np.float32)
        exact = sum(Fraction(float(v)) ** 2 for v in values)
        assert Fraction(joint_norm({"a": values})) ** 2 >= exact
    assert joint_norm({"a": np.zeros(3, np.float32)}) == 0
