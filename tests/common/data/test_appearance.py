"""Images of 3x3 pixels, turned and developed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.data import Domain, Normaliser
from common.data.appearance import PHOTOMETRIC, Images, developed, turned


def image(*rows: list[float]) -> Images:
    return np.array([[rows]], dtype=np.float32)


COUNT = image([1, 2, 3], [4, 5, 6], [7, 8, 9])
DOT = image([0, 0, 0], [0, 1, 0], [0, 0, 0])


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (0, COUNT),
        (90, image([3, 6, 9], [2, 5, 8], [1, 4, 7])),
        (180, image([9, 8, 7], [6, 5, 4], [3, 2, 1])),
        (270, image([7, 4, 1], [8, 5, 2], [9, 6, 3])),
    ],
)
def test_quarter_turns_go_anticlockwise(degrees: float, expected: Images) -> None:
    assert turned(COUNT, degrees).tolist() == expected.tolist()


def test_an_eighth_of_a_turn_is_bilinear_and_black_outside() -> None:
    # The pixel right of the centre comes from sqrt(1/2) below right of it: s of the
    # way in both directions, between 5, 6, 8 and 9. A corner comes from sqrt(2) away.
    s = 0.5**0.5
    found = turned(COUNT, 45)[0, 0]
    assert found[1, 1] == pytest.approx(5)
    assert found[1, 2] == pytest.approx(5 + s * 1 + s * 3, rel=1e-5)
    assert found[0, 1] == pytest.approx(5 + s * 1 - s * 3, rel=1e-5)
    corners = [found[r, c] for r in (0, 2) for c in (0, 2)]
    assert corners == [0, 0, 0, 0]


def test_a_small_turn_continues_the_exact_ones() -> None:
    almost = turned(COUNT, 90 - 1e-3)[0, 0, 1, 2]
    assert almost == pytest.approx(turned(COUNT, 90)[0, 0, 1, 2], abs=1e-3)


def test_images_that_are_not_square_keep_their_frame() -> None:
    wide = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    assert turned(wide, 180)[0, 0].tolist() == [[5, 4, 3], [2, 1, 0]]
    assert turned(wide, 90).shape == wide.shape


@given(
    x=arrays(np.float32, (2, 3, 4, 4), elements=st.floats(0, 1, width=32)),
    degrees=st.sampled_from([90, 180, 270]),
)
def test_four_turns_are_none(x: Images, degrees: float) -> None:
    back = turned(turned(x, degrees), 360 - degrees)
    assert np.array_equal(back, x)


def test_inverted() -> None:
    assert developed(DOT, "inverted")[0, 0].tolist() == [
        [1, 1, 1],
        [1, 0, 1],
        [1, 1, 1],
    ]


def test_low_contrast() -> None:
    found = developed(DOT, "low contrast")[0, 0]
    assert found[1, 1] == pytest.approx(0.95)
    assert found[0, 0] == pytest.approx(0.6)


def test_blurred() -> None:
    # A Gaussian of a quarter of a pixel: exp(-8) of the centre one pixel away, of
    # weights that add up to 1.
    near = np.exp(-8.0)
    centre = 1 / (1 + 2 * near)
    found = developed(DOT, "blurred")[0, 0]
    assert found[1, 1] == pytest.approx(centre**2, rel=1e-5)
    assert found[0, 1] == pytest.approx(centre**2 * near, rel=1e-4)
    assert found[0, 0] == pytest.approx(centre**2 * near**2, rel=1e-3)


def test_a_blur_keeps_channels_and_samples_apart() -> None:
    x = np.concatenate([DOT, 0 * DOT], axis=1)
    x = np.concatenate([x, x[:, ::-1]])
    found = developed(x, "blurred")
    assert found[0, 1].max() == found[1, 0].max() == 0
    assert np.array_equal(found[0, 0], found[1, 1])


def test_as_it_is() -> None:
    assert developed(COUNT, PHOTOMETRIC[0]) is COUNT


@pytest.mark.parametrize("stored", [(3, 3), (3, 3, 1), (1, 3, 3)])
def test_bytes_are_turned_first_and_normalised_last(stored: tuple[int, ...]) -> None:
    x = (COUNT * 20).astype(np.uint8).reshape(1, *stored)
    domain = Domain(degrees=90.0, look="inverted")
    normaliser = Normaliser(scale=200.0, mean=(0.5,), std=(0.25,))
    found = domain.model_input(x, (1, 3, 3), normaliser, "float32")
    # Pixel 3 (brightness 0.3) comes first, is 0.7, and 0.8 deviations above the mean.
    assert found.dtype == np.float32
    assert found[0, 0, 0].tolist() == pytest.approx([0.8, -0.4, -1.6], abs=1e-6)
