"""Layouts and normalisation, with numbers worked out by hand."""

import numpy as np
import pytest

from common.data import Dataset, Normaliser
from common.data.dataset import input_shape_of
from common.errors import DataError


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        ((5,), (5,)),
        ((8, 9), (1, 8, 9)),
        ((8, 9, 1), (1, 8, 9)),
        ((8, 9, 3), (3, 8, 9)),
        ((3, 8, 9), (3, 8, 9)),
    ],
)
def test_layouts(stored: tuple[int, ...], seen: tuple[int, ...]) -> None:
    assert input_shape_of(stored) == seen
    x = np.arange(2 * np.prod(stored), dtype=np.uint8).reshape(2, *stored)
    out = Normaliser().apply(x, seen)
    assert out.shape == (2, *seen)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous and out.flags.writeable
    if stored == (8, 9, 3):
        assert out[1, 2, 4, 5] == x[1, 4, 5, 2]
    else:
        assert np.array_equal(out.ravel(), x.ravel())


@pytest.mark.parametrize("stored", [(), (0,), (8, 9, 7), (2, 3, 4, 5), (8, 0, 3)])
def test_layouts_that_are_none(stored: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="a sample of shape"):
        input_shape_of(stored)


def test_normalise_by_hand() -> None:
    normaliser = Normaliser(scale=255.0, mean=(0.2, 0.6, 1.0), std=(0.5, 0.25, 1.0))
    x = np.array([[[[51, 153, 255]]], [[[255, 0, 0]]]], dtype=np.uint8)
    out = normaliser.apply(x, (3, 1, 1))
    np.testing.assert_allclose(
        out[:, :, 0, 0], [[0.0, 0.0, 0.0], [1.6, -2.4, -1.0]], atol=1e-6
    )


def test_normalise_takes_an_empty_batch_and_refuses_another_shape() -> None:
    assert Normaliser().apply(np.empty((0, 8, 8)), (1, 8, 8)).shape == (0, 1, 8, 8)
    with pytest.raises(DataError, match="do not fit"):
        Normaliser().apply(np.empty((2, 8, 7)), (1, 8, 8))


def test_arrays_are_read_only_views_of_the_callers() -> None:
    x, y = np.zeros((4, 2), dtype=np.float32), np.zeros(4, dtype=np.int64)
    dataset = Dataset(
        name="zeros",
        x_train=x,
        y_train=y,
        x_test=x,
        y_test=y,
        num_classes=1,
        input_shape=(2,),
    )
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert np.shares_memory(dataset.x_train, x)
    assert x.flags.writeable
    assert dataset.normalise(dataset.x_train).flags.writeable
