"""What samples must be."""

import json

import numpy as np
import pytest

from common.data import Normaliser, load_dataset
from common.inputs import InputError, Inputs

COLOUR = Inputs(
    input_shape=(3, 2, 2),
    num_classes=4,
    normaliser=Normaliser(scale=255.0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)),
)
TOKENS = Inputs(input_shape=(5,), num_classes=2, kind="int64")


def test_preparing_is_what_training_did() -> None:
    dataset = load_dataset("digits", ".")
    x = dataset.x_test[:7]
    prepared = Inputs.of(dataset).prepare(x)
    np.testing.assert_array_equal(prepared, dataset.normalise(x))
    assert prepared.dtype == np.float32


def test_channels_first_and_last_are_the_same_samples() -> None:
    x = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    first = COLOUR.prepare(np.moveaxis(x, -1, 1))
    np.testing.assert_array_equal(COLOUR.prepare(x), first)
    assert first[0, 2, 0, 0] == pytest.approx((2 / 255 - 0.3) / 0.1)


def test_tokens_stay_integers() -> None:
    tokens = np.array([[2**40, 1, 2, 3, 4]])
    prepared = TOKENS.prepare(tokens)
    assert prepared.dtype == np.int64
    np.testing.assert_array_equal(prepared, tokens)
    for wrong in (tokens.astype(np.float32), tokens[:, :3]):
        with pytest.raises(InputError, match=r"expected integers of shape \(samples"):
            TOKENS.prepare(wrong)
    assert (TOKENS.sample_bytes, COLOUR.sample_bytes) == (40, 48)


def test_tokens_are_below_the_vocabulary() -> None:
    few = Inputs(input_shape=(2,), num_classes=2, kind="int64", vocabulary=16)
    assert few.prepare(np.array([[15, 0]], dtype=np.uint16)).tolist() == [[15, 0]]
    for wrong in (16, -1):
        with pytest.raises(InputError, match="expected 0 to 15"):
            few.prepare(np.array([[wrong, 0]]))


@pytest.mark.parametrize("inputs", [COLOUR, TOKENS])
def test_the_description_survives_json(inputs: Inputs) -> None:
    assert Inputs.from_facts(json.loads(json.dumps(inputs.facts()))) == inputs


def test_a_description_with_something_missing_or_unknown() -> None:
    for wrong in (
        {},
        {**COLOUR.facts(), "colour": 1},
        {**COLOUR.facts(), "normaliser": 3},
    ):
        with pytest.raises(ValueError, match="no description of a model's input"):
            Inputs.from_facts(wrong)
