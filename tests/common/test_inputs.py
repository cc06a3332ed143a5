"""What samples must be."""

import json

import numpy as np
import pytest

from common.data import Normaliser, load_dataset
from common.inputs import (
    InputError,
    inputs_of,
    kept_task,
    prepare,
    sample_bytes,
    unusable,
)
from common.task import Fixed, TableTask, TextTask
from common.task.known import task_of, task_of_shape

COLOUR = task_of_shape(
    (3, 2, 2), 4, Normaliser(scale=255.0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)), 0
)
TOKENS = TextTask(classes=("bad", "good"), length=5, vocabulary=16)


def test_preparing_is_what_training_did() -> None:
    dataset = load_dataset("digits", ".")
    x = dataset.x_test[:7]
    prepared = prepare(task_of(dataset), x)
    np.testing.assert_array_equal(prepared, dataset.normalise(x))
    assert prepared.dtype == np.float32


def test_channels_first_and_last_are_the_same_samples() -> None:
    x = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    first = prepare(COLOUR, np.moveaxis(x, -1, 1))
    np.testing.assert_array_equal(prepare(COLOUR, x), first)
    assert first[0, 2, 0, 0] == pytest.approx((2 / 255 - 0.3) / 0.1)


def test_tokens_stay_integers_and_are_below_the_vocabulary() -> None:
    tokens = np.array([[15, 1, 2, 3, 0]], dtype=np.uint16)
    prepared = prepare(TOKENS, tokens)
    assert prepared.dtype == np.int64
    np.testing.assert_array_equal(prepared, tokens)
    for wrong in (tokens.astype(np.float32), tokens[:, :3]):
        with pytest.raises(InputError, match=r"expected integers of shape \(samples"):
            prepare(TOKENS, wrong)
    for number in (16, -1):
        with pytest.raises(InputError, match="expected 0 to 15"):
            prepare(TOKENS, np.full((1, 5), number))
    assert (sample_bytes(TOKENS), sample_bytes(COLOUR)) == (40, 48)


def test_what_is_no_number_is_named_by_its_sample() -> None:
    x = np.full((3, 3, 2, 2), 100.0)
    for value in (np.nan, np.inf, -np.inf, 1e300):
        bad = x.copy()
        bad[1, 0, 1, 1] = value
        assert unusable(COLOUR, bad).tolist() == [False, True, False]
        with pytest.raises(InputError, match="x has NaN or infinity in sample 1"):
            prepare(COLOUR, bad)
    assert not unusable(COLOUR, x.astype(np.uint8)).any()


def test_a_missing_value_is_nothing_wrong_in_a_table() -> None:
    table = TableTask(
        classes=("a", "b"), columns=3, scale=Fixed(mean=(1.0,), std=(2.0,))
    )
    x = np.array([[1.0, np.nan, 3.0], [1.0, np.inf, 3.0]])
    assert unusable(table, x).tolist() == [False, True]


def test_the_kept_task_is_the_one_of_training() -> None:
    for task in (COLOUR, TOKENS):
        facts = json.loads(json.dumps({"task": json.loads(task.to_json())}))
        assert kept_task(facts) == task


def test_models_kept_before_there_were_tasks() -> None:
    inputs = {
        "input_shape": [3, 2, 2],
        "num_classes": 4,
        "kind": "float32",
        "normaliser": {"scale": 255.0, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
        "vocabulary": 0,
    }
    assert kept_task({"inputs": inputs}) == COLOUR
    # Runs still say it, beside their task.
    assert json.loads(json.dumps(inputs_of(COLOUR))) == inputs


@pytest.mark.parametrize("facts", [{}, {"inputs": None}, {"task": None}])
def test_a_model_without_a_task(facts: dict[str, None]) -> None:
    with pytest.raises(ValueError, match="the task of the model is missing"):
        kept_task(facts)
