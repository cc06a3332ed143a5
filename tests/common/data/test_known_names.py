"""A file under the name of a known set: that set, or the user's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import DATASETS, load_dataset
from tests.common.data.npz import arrays


def small_emnist(**changes: Any) -> dict[str, Any]:
    """Return the arrays of a file with EMNIST's classes and shape."""
    x = np.arange(52 * 784, dtype=np.uint8).reshape(52, 28, 28)
    y = np.arange(52) % 26
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y} | changes


@pytest.mark.parametrize("name", ["emnist.npz", "emnist_letters.npz"])
def test_emnist_has_two_file_names(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / name, **small_emnist())
    for series in (False, True):
        emnist = load_dataset("emnist", tmp_path, series=series)
        assert (emnist.name, emnist.num_classes) == ("emnist", 26)
        assert emnist.normaliser == DATASETS["emnist"].normaliser
        assert emnist.input_shape == (1, 28, 28)


@pytest.mark.parametrize(
    "changes",
    [
        {"y_train": np.arange(52) % 27},
        {"y_train": np.arange(52) % 2, "y_test": np.arange(52) % 2},
        {"x_train": np.zeros((52, 28, 28)), "x_test": np.zeros((52, 28, 28))},
        {
            "x_train": np.zeros((52, 20, 20), np.uint8),
            "x_test": np.zeros((52, 20, 20), np.uint8),
        },
    ],
)
def test_another_file_of_a_known_name_is_the_users_own(
    changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "emnist.npz", **small_emnist(**changes))
    np.savez(tmp_path / "mine.npz", **small_emnist(**changes))
    with caplog.at_level("INFO"):
        known = load_dataset("emnist", tmp_path)
    mine = load_dataset("mine", tmp_path)
    assert (known.num_classes, known.normaliser) == (mine.num_classes, mine.normaliser)
    assert "emnist.npz is not the known set emnist" in caplog.text


def test_digits_of_the_users_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "digits.npz", **arrays())
    with caplog.at_level("INFO"):
        mine = load_dataset("digits", tmp_path)
    assert (mine.num_classes, len(mine.x_train)) == (3, 6)
    assert "digits.npz is not the known set digits" in caplog.text
