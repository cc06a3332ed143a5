"""The chart generator: positions by hand, and markup that always parses."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.report.heat import LEVELS, MAX_COLUMNS, heatmap
from server_app.report.numbers import marks, number, ticks, with_half
from server_app.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    legend,
    line_chart,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1.0]),
        (0, 0.83, [0, 0.25, 0.5, 0.75, 1.0]),
        (1, 15, [0, 5, 10, 15]),
        (0, 0, [0, 1]),
    ],
)
def test_ticks_are_round_and_cover_the_data(
    low: float, high: float, expected: list[float]
) -> None:
    assert ticks(low, high) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234.6, "1235"),
        (12.34, "12.3"),
        (0.5, "0.5"),
        (0.00421, "0.0042"),
        (1e-17, "0"),
        (-1e-17, "0"),
        (math.nan, "–"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("middle", "half", "text"),
    [
        (0.6083, 0.0733, "0.608 ± 0.073"),
        (0, 0.12, "0.00 ± 0.12"),
        (37.83, 42.5, "38 ± 42"),
        (0.5, 1e-17, "0.5 ± 0"),
        (1e12, 1e10, "1e+12 ± 1e+10"),
        (1234.0, 12.34, "1234 ± 12"),
        (0.5, None, "0.5"),
        (math.nan, None, "–"),
    ],
)
def test_an_interval_says_how_many_decimals_count(
    middle: float, half: float | None, text: str
) -> None:
    assert with_half(middle, half) == text


def test_no_two_marks_of_an_axis_are_alike() -> None:
    assert marks([0, 0.25, 0.5]) == ["0", "0.25", "0.5"]
    assert marks([0, 5e-06, 1e-05]) == ["0", "5e-06", "1e-05"]


def test_an_axis_of_nothing_but_zero_goes_to_one() -> None:
    chart = line_chart(
        [Series(name="a", x=[1, 2], y=[0.0, 1e-17])], x_label="x", y_label="y"
    )
    assert ">1</text>" in chart and "e-" not in chart


def test_a_band_stays_within_the_chart() -> None:
    one = Series(name="a", x=[0, 1], y=[1.0, 1.0], half=[0.5, 9.0])
    chart = line_chart([one], x_label="x", y_label="y", top=1.0)
    found = re.search(r'<polygon class="band s0" points="([^"]*)"', chart)
    assert found
    # The axis ends at 1: lower edge at 0.5 and 0, upper at 1.
    heights = [float(pair.split(",")[1]) for pair in found[1].split()]
    middle, bottom = (HEIGHT - BOTTOM + TOP) / 2, HEIGHT - BOTTOM
    assert heights == [middle, bottom, TOP, TOP]
    assert 'data-y="1.00\u00a0±\u00a00.50 1.0\u00a0±\u00a09.0"' in chart


def points(chart: str) -> list[tuple[float, float]]:
    found = re.search(r'<polyline[^>]* points="([^"]*)"', chart)
    assert found
    pairs = [pair.split(",") for pair in found[1].split()]
    return [(float(x), float(y)) for x, y in pairs]


def test_a_line_runs_from_corner_to_corner() -> None:
    series = Series(name="s", x=[1, 2, 3], y=[0.0, float("nan"), 1.0])
    chart = line_chart([series], x_label="round", y_label="accuracy", top=1.0)
    assert points(chart) == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]


def test_there_is_no_client_one_and_a_half() -> None:
    chart = line_chart(
        [Series(name="a", x=[1, 2, 3], y=[0.1, 0.2, 0.3])], x_label="x", y_label="y"
    )
    ticks_below = re.findall(r'text-anchor="middle">([\d.]+)<', chart)
    assert ticks_below == ["1", "2", "3"]


def test_a_chart_of_nothing_is_an_empty_one() -> None:
    ElementTree.fromstring(line_chart([], x_label="x", y_label="y", dots=True))


def test_a_name_has_room_beside_its_row() -> None:
    chart = heatmap([[1.0, 0.0]], x_label="x", y_label="y", row_names=["rust"])
    # 24 for the title and 7 for each letter.
    assert f'width="{WIDTH - RIGHT - 52}"' in chart and ">rust<" in chart


def test_a_long_line_is_thinned_and_keeps_its_newest_point() -> None:
    count = 10 * MAX_POINTS + 7
    series = Series(name="s", x=list(range(count)), y=[1.0] * (count - 1) + [2.0])
    drawn = points(line_chart([series], x_label="x", y_label="y"))
    assert len(drawn) <= MAX_POINTS
    assert drawn[-1] == (WIDTH - RIGHT, TOP)


@given(
    ys=st.lists(st.floats(0, 1e9) | st.just(float("nan")), max_size=8),
    name=st.text(max_size=8),
)
def test_any_series_gives_well_formed_markup(ys: list[float], name: str) -> None:
    printable = "".join(c for c in name if c.isprintable())
    series = [Series(name=printable, x=list(range(len(ys))), y=ys)]
    chart = line_chart(series, x_label=printable, y_label="<y>") + legend(series)
    root = ElementTree.fromstring(f"<div>{chart}</div>")
    for shape in root.iter("polyline"):
        for pair in shape.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert LEFT <= x <= WIDTH - RIGHT
            assert TOP <= y <= HEIGHT - BOTTOM


def inks(chart: str) -> list[float]:
    root = ElementTree.fromstring(f"<div>{chart}</div>")
    return [
        float(path.attrib["fill-opacity"])
        for path in root.iter("path")
        for _ in range(path.attrib["d"].count("M"))
    ]


def test_ink_follows_the_value_and_nothing_known_stays_empty() -> None:
    chart = heatmap(
        [[0.0, 1.0, 2.0], [4.0, float("nan"), 4.0]], x_label="x", y_label="y"
    )
    assert sorted(inks(chart)) == [0.25, 0.5, 1, 1]


def test_many_columns_are_averaged() -> None:
    values = np.tile([0.0, 1.0], MAX_COLUMNS)[None]
    chart = heatmap(values, x_label="round", y_label="expert", high=1.0)
    assert inks(chart) == [round(LEVELS / 2) / LEVELS] * MAX_COLUMNS


def test_names_that_begin_alike_are_told_apart_beside_a_map() -> None:
    names = ["hospital-ward-1", "hospital-ward-2"]
    chart = heatmap([[1.0], [2.0]], x_label="x", y_label="client", row_names=names)
    assert ">hospit…ard-1<" in chart and ">hospit…ard-2<" in chart
    assert "hospital-ward-2" in chart  # for who points at it


def test_a_map_says_what_its_cells_are() -> None:
    chart = heatmap(
        [[0.25, float("nan")], [1.0, 2.0]],
        x_label="round",
        y_label="expert",
        column_names=["2", "4"],
    )
    root = ElementTree.fromstring(f"<div>{chart}</div>")[0]
    assert root.attrib["data-cells"] == "0.25 –;1 2"
    assert root.attrib["data-columns"] == '["2", "4"]'
    assert root.attrib["data-rows"] == '["0", "1"]'
