"""What labels say to the objective, in numbers worked out by hand."""

import numpy as np

from client_app.labels import classes_present, log_frequencies
from common.data import ClientData, Normaliser

DATA = ClientData(
    x=np.zeros((5, 1), np.float32),
    y=np.array([0, 0, 2, 1, 0]),
    train=np.array([0, 1, 2]),  # classes 0, 0, 2 of three
    held_out=np.array([3, 4]),
    num_classes=3,
    input_shape=(1,),
    normaliser=Normaliser(mean=(0.0,), std=(1.0,)),
)


def test_half_a_sample_is_added_to_every_class() -> None:
    expected = np.log([2.5 / 4.5, 0.5 / 4.5, 1.5 / 4.5])
    np.testing.assert_allclose(log_frequencies(DATA), expected, rtol=1e-6)


def test_a_class_that_is_held_out_alone_is_not_there() -> None:
    assert classes_present(DATA).tolist() == [1, 0, 1]
