"""Series are told apart by everybody: contrast and distance, worked out from the page.

Contrast is WCAG 2.1's (success criterion 1.4.11: 3 to 1 for graphics, 1.4.3: 4.5 to 1
for text). What the colour-blind see is simulated by the matrices of Machado, Oliveira
and Fernandes (2009) for severity 1, applied to linear RGB; distances are CIE 1976's in
L*a*b* under D65, where about 2.3 is just seen.
"""

import itertools
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from server_app.report.style import CSS
from server_app.report.svg import ALIKE, COLOURS, DASHES, colour

Vector = NDArray[np.float64]
APART = 15.0

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def schemes() -> dict[str, dict[str, str]]:
    """Return the variables of the page by scheme."""
    light, dark = re.findall(r":root\{([^}]*)\}", CSS)
    return {
        "light": dict(re.findall(r"--(\w+):(#\w+)", light)),
        "dark": dict(re.findall(r"--(\w+):(#\w+)", dark)),
    }


def linear(code: str) -> Vector:
    code = code[1:] if len(code) == 7 else "".join(2 * digit for digit in code[1:])
    values = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(XYZ[1] @ linear(code)) for code in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: Vector) -> Vector:
    white = XYZ @ np.ones(3)
    share = XYZ @ np.clip(rgb, 0, 1) / white
    x, y, z = np.where(
        share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str, vision: str) -> float:
    seen = [lab(VISIONS[vision] @ linear(code)) for code in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def test_the_measures_are_right_where_they_are_known() -> None:
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.20], atol=0.05)
    # Red and green of one lightness are the confusion that all know.
    assert distance("#ff0000", "#008000", "normal") > 100
    assert distance("#b07000", "#708000", "deuteranopia") < 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_stands_out_from_its_ground(scheme: str) -> None:
    found = schemes()[scheme]
    for ground in (found["ground"], found["card"]):
        for index in range(COLOURS):
            assert contrast(found[f"c{index}"], ground) >= 3
        assert contrast(found["heat"], ground) >= 3
        assert contrast(found["ink"], ground) >= 4.5
        assert contrast(found["soft"], ground) >= 4.5


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_series_of_the_same_dashes_have_colours_far_apart(
    scheme: str, vision: str
) -> None:
    found = schemes()[scheme]
    for one, other in itertools.combinations(range(COLOURS), 2):
        if one // ALIKE == other // ALIKE:
            codes = found[f"c{one}"], found[f"c{other}"]
            assert distance(*codes, vision) >= APART, (one, other)


def test_no_two_of_the_first_sixteen_series_are_drawn_alike() -> None:
    looks = [colour(index) for index in range(ALIKE * len(DASHES))]
    assert len(set(looks)) == 16
    # The second four of a palette of eight have other dashes than the first.
    assert looks[0] == "s0" and looks[4] == "s4 d1"
