"""What a data set holds, not what it is called or where its rows stand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.data import Dataset, Normaliser, fingerprint

RNG = np.random.default_rng(0)


def made(**changes: Any) -> Dataset:
    fields: dict[str, Any] = {
        "name": "blobs",
        "x_train": np.arange(5000 * 4, dtype=np.uint8).reshape(5000, 2, 2),
        "y_train": np.arange(5000) % 3,
        "x_test": np.ones((7, 2, 2), np.uint8),
        "y_test": np.arange(7) % 3,
        "num_classes": 3,
        "input_shape": (1, 2, 2),
    }
    return Dataset(**{**fields, **changes})


def test_equal_contents_have_equal_hashes_wherever_they_lie() -> None:
    first = fingerprint(made())
    assert fingerprint(made()) == first
    assert fingerprint(made(name="another")) == first
    wide = np.arange(5000 * 8, dtype=np.uint8).reshape(5000, 2, 4)
    wide[:, :, ::2] = made().x_train
    assert fingerprint(made(x_train=wide[:, :, ::2])) == first  # not contiguous
    assert fingerprint(made(y_train=made().y_train.astype(">i8"))) == first
    assert all(len(part) == 16 for part in first)


def changed_one(array: np.ndarray) -> np.ndarray:
    other = array.copy()
    other.flat[-1] += 1
    return other


@pytest.mark.parametrize("field", ["x_train", "y_train", "x_test", "y_test"])
def test_one_value_changes_its_part_alone(field: str) -> None:
    before, after = (
        fingerprint(made()),
        fingerprint(made(**{field: changed_one(getattr(made(), field))})),
    )
    assert (before.train != after.train) == field.endswith("train")
    assert (before.test != after.test) == field.endswith("test")


def test_order_counts_because_rows_are_dealt_by_it() -> None:
    data = made()
    turned = replace(data, x_train=data.x_train[::-1], y_train=data.y_train[::-1])
    assert fingerprint(turned).train != fingerprint(data).train


def test_what_belongs_to_the_rows_counts_too() -> None:
    first = fingerprint(made())
    for field in ("owner_train", "group_train"):
        assert fingerprint(made(**{field: np.arange(5000)})).train != first.train
    assert fingerprint(made(normaliser=Normaliser(scale=16))).test != first.test
    assert fingerprint(made(num_classes=4)).test != first.test
    flat = made().x_train.reshape(5000, 4)
    assert fingerprint(made(x_train=flat)).train != first.train
