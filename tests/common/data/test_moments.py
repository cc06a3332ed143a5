"""Mean, spread and range per channel, against NumPy's own, and the scale they give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data import moments as module
from common.data.moments import Moments, standardising

NUMBERS = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))


def by_numpy(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the moments of (channels, N), every channel with a value."""
    return {
        "count": (~np.isnan(values)).sum(1),
        "mean": np.nanmean(values, 1),
        "std": np.nanstd(values, 1),
        "least": np.nanmin(values, 1),
        "most": np.nanmax(values, 1),
    }


def check(found: Moments, values: np.ndarray) -> None:
    for name, expected in by_numpy(values).items():
        np.testing.assert_allclose(
            getattr(found, name), expected, rtol=1e-9, atol=1e-6, err_msg=name
        )


@given(
    st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=1, max_size=20),
    st.integers(0, 20),
)
def test_merged_are_those_of_all_together(rows: list[list[float]], cut: int) -> None:
    values = np.array([[1.0, -3.0], *rows]).T
    parts = [Moments.of(values[:, :cut]), Moments.of(values[:, cut:])]
    merged = Moments.merged(parts)
    assert merged is not None
    check(merged, values)


def test_nothing_is_zero() -> None:
    none = Moments.of(np.full((1, 3), np.nan))
    assert [float(v[0]) for v in (none.count, none.mean, none.std)] == [0, 0, 0]
    assert none.constant.all()
    assert standardising(none) == ((0.0,), (1.0,))
    assert Moments.merged([]) is None


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        (None, lambda x: x.reshape(1, -1)),
        (1, lambda x: x.transpose(1, 0, 2).reshape(4, -1)),
        (2, lambda x: x.transpose(2, 0, 1).reshape(5, -1)),
    ],
)
def test_of_samples_block_by_block(
    axis: int | None, values: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 7 * 20)
    x = np.random.default_rng(0).integers(0, 256, (50, 4, 5)).astype(np.uint8)
    assert [len(rows) for rows in module.blocks(x)] == [7] * 7 + [1]
    check(Moments.of_samples(x, axis), values(x).astype(float))  # type: ignore[operator]


def test_a_scale_by_hand() -> None:
    x = np.array([[1.0, 3.0], [1e9, 1e9 + 2.0], [4.0, 4.0], [0.0, 1.0]])
    mean, std = standardising(Moments.of(x), [False, False, False, True])
    assert mean == (2.0, 1e9 + 1, 4.0, 0.0)
    assert std == (1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7e12, 1e-12, 3e38])
def test_a_constant_channel_has_std_1(constant: float) -> None:
    x = np.full((1, 1001), constant)
    parts = [Moments.of(x[:, start::3]) for start in range(3)]
    merged = Moments.merged(parts)
    assert merged is not None and merged.constant.all()
    [mean], [std] = standardising(merged)
    assert std == 1
    assert abs(mean - constant) <= 1e-6


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=40),
    st.floats(-9, 9),
    st.floats(-12, 12),
    st.randoms(use_true_random=False),
)
def test_a_scale_in_other_units_and_another_order(
    numbers: list[float], offset: float, power: float, random: object
) -> None:
    x = np.array([numbers]) * 10.0**power + offset * 10.0**power
    moments = Moments.of(x)
    if moments.constant.all():
        return
    [mean], [std] = standardising(moments)
    random.shuffle(numbers)  # type: ignore[attr-defined]
    again = np.array([numbers]) * 10.0**power + offset * 10.0**power
    np.testing.assert_allclose(
        standardising(Moments.of(again)), ([mean], [std]), rtol=2e-6, atol=2e-6 * std
    )
    scaled = (x - mean) / std
    assert abs(scaled.mean()) < 1e-4
    assert abs(scaled.std() - 1) < 1e-4
