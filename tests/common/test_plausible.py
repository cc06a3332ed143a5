"""Numbers that cannot be of a model's scale, and those that can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.data import Normaliser
from common.inputs import InputError, prepare
from common.plausible import doubtful
from common.task import (
    Column,
    Fixed,
    ImageTask,
    SeriesTask,
    TableTask,
    Task,
    TextTask,
)
from common.task.known import task_of_shape

CLASSES = ("a", "b")


def pictures(**fields: object) -> ImageTask:
    return ImageTask(classes=CLASSES, size=(8, 8), channels=1, **fields)


BYTES = pictures(scale=Fixed(mean=(0.5,), std=(0.25,)))
SIXTEEN = task_of_shape((1, 8, 8), 10, Normaliser(scale=16.0), 0)
UNIT = pictures(bright=1.0, scale=Fixed(mean=(0.5,), std=(0.3,)))
UNKNOWN = pictures(bright=1.0, scale="none")
LARGE = pictures(bright=1.0, scale=Fixed(mean=(300.0,), std=(400.0,)))


def photos(count: int = 20) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 8, 8)).astype(np.uint8)


def verdict(task: Task, x: NDArray[np.generic]) -> str:
    """Return how a model of the task takes it: refused, odd or fine."""
    try:
        prepared = prepare(task, x)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        return "refused"
    return "odd" if doubtful(task, x, prepared) else "fine"


def test_images_of_zero_to_one_are_refused_by_a_model_of_bytes() -> None:
    x = (photos() / 255).astype(np.float32)
    with pytest.raises(
        InputError,
        match=r"^x has values from 0 to 1 \(float32\), and the model takes images from "
        r"0 to 255; multiply by 255$",
    ):
        prepare(BYTES, x)
    assert verdict(BYTES, photos()) == "fine"
    assert verdict(BYTES, photos().astype(np.float64)) == "fine"
    assert verdict(SIXTEEN, x) == "refused"
    assert verdict(UNIT, x) == "fine"
    assert verdict(UNKNOWN, x) == "fine"


@pytest.mark.parametrize(
    ("task", "told"),
    [(SIXTEEN, r"divide bytes by 15\.9375$"), (UNIT, "20 standard deviations off")],
    ids=["16", "1"],
)
def test_bytes_are_refused_by_a_model_of_smaller_numbers(
    task: ImageTask, told: str
) -> None:
    sparse = photos()
    sparse[:, 1:] = 0  # as most pixels of a digit are
    for x in (photos(), sparse):
        for asked in (x, x.astype(np.float32)):
            with pytest.raises(InputError, match=told):
                prepare(task, asked)


def test_images_in_numbers_of_their_own() -> None:
    x = photos() * 8.0 - 700
    assert verdict(LARGE, x) == "fine"
    assert verdict(LARGE, photos() / 255) == "refused"
    assert verdict(LARGE, x * 100) == "refused"


def test_images_that_were_scaled_before_are_refused() -> None:
    x = (photos() / 255 - 0.45) / 0.22
    assert verdict(BYTES, x) == "refused"
    assert verdict(SIXTEEN, x) == "refused"
    assert verdict(UNKNOWN, x) == "fine"
    assert verdict(BYTES, photos() - 128.0) == "refused"
    assert verdict(BYTES, photos() * 257.0) == "refused"


@given(st.integers(0, 255), st.sampled_from([np.uint8, np.float32]))
def test_an_image_of_one_brightness_is_never_refused(
    value: int, dtype: type[np.generic]
) -> None:
    assert verdict(BYTES, np.full((1, 8, 8), value, dtype)) == "fine"
    assert verdict(SIXTEEN, np.full((1, 8, 8), value % 17, dtype)) == "fine"


def test_black_images_and_what_a_filter_overshoots_are_fine() -> None:
    assert verdict(BYTES, np.zeros((4, 8, 8), np.uint8)) == "fine"
    assert verdict(BYTES, np.zeros((4, 8, 8), np.float32)) == "fine"
    filtered = photos().astype(np.float32)
    filtered[:, 0, 0], filtered[:, 0, 1] = -9.5, 266.5
    assert verdict(BYTES, filtered) == "fine"
    hot = photos().astype(np.float32)
    hot[0, 3, 3] = 4000
    assert verdict(BYTES, hot) == "fine"


def test_what_is_odd_about_images_is_told() -> None:
    dim = photos() // 8
    assert verdict(BYTES, dim) == "odd"
    assert doubtful(BYTES, dim, prepare(BYTES, dim)) == (
        "never exceeds 31: the brightest is 255 to this model"
    )


ACCELERATION = SeriesTask(
    classes=CLASSES,
    channels=("ax", "ay", "az"),
    length=32,
    scale=Fixed(mean=(0.0, 0.1, 1.0), std=(0.4, 0.3, 0.5)),
)


def readings(count: int = 4) -> NDArray[np.float32]:
    """Windows in g."""
    noise = np.random.default_rng(1).standard_normal((count, 3, 32))
    x = noise * [[0.4], [0.3], [0.5]] + [[0], [0.1], [1]]
    return x.astype(np.float32)


def test_steps_may_come_before_channels_and_readings_be_missing() -> None:
    x = readings()
    x[:, 2, ::3] = np.nan
    assert verdict(ACCELERATION, x) == "fine"
    assert verdict(ACCELERATION, x.swapaxes(1, 2)) == "fine"
    assert verdict(ACCELERATION, x.swapaxes(1, 2) * 16384) == "refused"


@pytest.mark.parametrize("count", [1, 4])
def test_readings_in_counts_are_refused_by_a_model_of_g(count: int) -> None:
    assert verdict(ACCELERATION, readings(count)) == "fine"
    with pytest.raises(InputError, match="in the unit of its training data"):
        prepare(ACCELERATION, readings(count) * 16384)


def test_one_large_value_and_a_sensor_that_hangs_are_fine() -> None:
    spike = readings(1)
    spike[0, :, 7] = 3000
    assert verdict(ACCELERATION, spike) == "fine"
    hangs = readings(1)
    hangs[:] = 16.0
    assert verdict(ACCELERATION, hangs) == "fine"


def test_a_channel_that_is_far_off_is_told() -> None:
    x = readings()
    x[:, 1] *= 20
    prepared = prepare(ACCELERATION, x)
    assert "channel 'ay' that are about" in doubtful(ACCELERATION, x, prepared)
    x[:, 1] *= 50
    with pytest.raises(InputError, match=r"channel 'ay' .* in the unit"):
        prepare(ACCELERATION, x)


TABLE = TableTask(
    classes=CLASSES,
    columns=(Column(name="temp"), Column(name="mode", values=("on", "off"))),
    scale=Fixed(mean=(20.0, 0.0, 0.0), std=(5.0, 1.0, 1.0)),
)


def test_rows_of_a_table() -> None:
    celsius = np.array([[18, 1, 0], [25, 0, 1], [22, 0, 0]] * 3, dtype=np.float32)
    assert verdict(TABLE, celsius) == "fine"
    assert verdict(TABLE, celsius[:1] + np.array([400, 0, 0])) == "odd"
    kelvin = celsius + np.array([273, 0, 0])
    assert verdict(TABLE, kelvin) == "refused"
    missing = celsius.copy()
    missing[0, 0] = np.nan
    assert verdict(TABLE, missing) == "fine"
    assert verdict(TABLE, missing[:1]) == "fine"


def test_a_table_of_which_no_scale_is_known_takes_any_number() -> None:
    plain = task_of_shape((13,), 3, Normaliser(), 0)
    assert verdict(plain, np.full((2, 13), 1e6) * np.arange(13)) == "fine"


def test_texts_have_no_scale() -> None:
    text = TextTask(classes=CLASSES, length=4, vocabulary=9)
    assert verdict(text, np.full((2, 4), 8)) == "fine"
