"""Moments that no samples can have are refused, and those of any samples are not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.task import Moments, Task, parse_task
from server_app.fleet.stated import impossible

TABLE = parse_task(
    {
        "kind": "table",
        "classes": ["no", "yes"],
        "columns": ["temp", {"name": "mode", "values": ["a", "b"]}],
    }
)
SERIES = parse_task(
    {"kind": "series", "classes": ["a", "b"], "channels": ["ax", "ay"], "length": 4}
)
IMAGE = parse_task(
    {"kind": "image", "classes": ["a", "b"], "size": [2, 3], "channels": 1}
)
ROWS = np.array([[3.0, 1, 0], [5.0, 0, 1], [10.0, 0, 1]])


def of(values: Any) -> Moments:
    return Moments.of(np.asarray(values, dtype=np.float64))


def changed(channel: int, **fields: float) -> Moments:
    """Return the moments of ROWS with something else said of one column."""
    moments = of(ROWS.T)
    for name, value in fields.items():
        values = getattr(moments, name).copy()
        values[channel] = value
        moments = replace(moments, **{name: values})
    return moments


def test_the_moments_of_samples_are_possible() -> None:
    assert impossible(of(ROWS.T), TABLE, 3) == ""
    # A missing cell, a column of nothing, and one sample.
    gaps = ROWS.T.copy()
    gaps[0, 1:] = np.nan
    assert impossible(of(gaps), TABLE, 3) == ""
    assert impossible(of(np.full((3, 3), np.nan)), TABLE, 3) == ""
    assert impossible(of(ROWS[:1].T), TABLE, 1) == ""


float32 = st.floats(width=32, allow_nan=True, allow_infinity=False)


@given(arrays(np.float32, (2, 12), elements=float32))
def test_whatever_the_samples_are_their_moments_are_possible(x: Any) -> None:
    assert impossible(Moments.of(x), SERIES, 3) == ""


@given(arrays(np.uint8, (1, 12)))
def test_moments_of_bytes_are_possible(x: Any) -> None:
    assert impossible(Moments.of(x / 255), IMAGE, 2) == ""


@given(
    st.floats(-1e6, 1e6, width=32), st.floats(0, 1e3, width=32), st.integers(1, 10**5)
)
def test_large_numbers_that_differ_little_are_possible(
    centre: float, width: float, number: int
) -> None:
    rng = np.random.default_rng(number)
    x = (centre + width * rng.normal(size=(2, 4 * min(number, 2000)))).astype("f4")
    assert impossible(Moments.of(x), SERIES, min(number, 2000)) == ""


IMPOSSIBLE: list[tuple[Moments, str]] = [
    (changed(0, count=4), "count must be an integer from 0 to 3"),
    (changed(0, count=2.5), "count must be an integer from 0 to 3"),
    (changed(0, count=-1), "count must be an integer from 0 to 3"),
    (changed(0, count=0), "all is 0 where there is no value"),
    (changed(0, mean=2.9), "least <= mean <= most"),
    (changed(0, mean=10.1), "least <= mean <= most"),
    (changed(0, least=11), "least <= mean <= most"),
    # 3, 5 and 10 have m2 26; 3 * (10 - 6) * (6 - 3) = 36 is the most there can be.
    (changed(0, m2=36.1), "m2 is beyond the range"),
    (changed(0, m2=-1), "m2 is beyond the range"),
    # The ends alone: 9 + 16.
    (changed(0, m2=24.9), "m2 is too small for the range"),
    (changed(0, m2=0), "m2 is too small for the range"),
    (changed(0, most=1e30, mean=1e29, m2=1.0), "m2 is too small for the range"),
    (changed(0, count=1), "one value has no range"),
    (
        changed(0, least=5, mean=5, most=5 + 1e-9, m2=1e-18),
        "values of float32 lie further apart",
    ),
    (changed(1, most=2.0, mean=1.0, m2=2.5), "a category is 0 or 1"),
    (changed(0, most=np.inf), "states a most of its samples that no float32 has"),
    (changed(0, mean=np.nan), "states a mean of its samples that no float32 has"),
    (changed(0, least=-1e39), "states a least of its samples that no float32 has"),
]


@pytest.mark.parametrize(("moments", "told"), IMPOSSIBLE)
def test_what_no_samples_have_is_told_with_the_column(
    moments: Moments, told: str
) -> None:
    found = impossible(moments, TABLE, 3)
    assert told in found
    assert "\n" not in found
    if "states what" in found:
        assert "column 'temp'" in found or "column 'mode=a'" in found


def test_twenty_six_is_what_the_numbers_above_have() -> None:
    assert impossible(changed(0, m2=26), TABLE, 3) == ""
    assert impossible(changed(0, m2=36), TABLE, 3) == ""
    assert impossible(changed(0, m2=25), TABLE, 3) == ""


def test_pixels_are_bytes() -> None:
    x = np.array([[0, 255, 255, 255, 255, 255]]) / 255
    assert impossible(of(x), IMAGE, 1) == ""
    for worse in (x * 1.01, x - 0.01):
        assert "pixels are from 0 to 1" in impossible(of(worse), IMAGE, 1)
    dim = parse_task(
        {"kind": "image", "classes": ["a", "b"], "size": [2, 3], "bright": 51}
    )
    several = np.repeat(x * 5, 3, axis=0)
    assert impossible(of(several), dim, 1) == ""


def test_another_number_of_channels_is_told() -> None:
    found = impossible(of(ROWS.T[:2]), TABLE, 3)
    assert found == "states 2 numbers as count of its samples: the task has 3 columns"


def of_shape(task: Task, samples: int) -> Moments:
    per_channel = samples * int(np.prod(task.input_shape)) // task.num_channels
    return of(np.random.default_rng(1).random((task.num_channels, per_channel)))


@pytest.mark.parametrize("task", [IMAGE, SERIES])
def test_there_are_as_many_values_as_samples_have(task: Task) -> None:
    assert impossible(of_shape(task, 5), task, 5) == ""
    assert "count must be" in impossible(of_shape(task, 6), task, 5)
