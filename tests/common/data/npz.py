"""A small ``.npz`` file of a user's own, and what is said of a bad one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import load_dataset
from common.errors import DataError


def arrays(**changes: Any) -> dict[str, Any]:
    """Return the arrays of a good file: six training and four test images."""
    good = {
        "x_train": np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8),
        "x_test": np.zeros((4, 8, 8), dtype=np.uint8),
        "y_test": np.array([0, 1, 2, 2]),
    }
    return {k: v for k, v in (good | changes).items() if v is not None}


def refused(tmp_path: Path, name: str = "mine", **changes: Any) -> str:
    np.savez(tmp_path / f"{name}.npz", **arrays(**changes))
    with pytest.raises(DataError) as error:
        load_dataset(name, tmp_path)
    assert str(tmp_path / f"{name}.npz") in str(error.value)
    return str(error.value)
