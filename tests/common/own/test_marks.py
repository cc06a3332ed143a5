"""Marks of a test set: the same on a device as where the set is the server's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import HashedPieces, load_dataset
from common.own.marks import Marks, marks_of, marks_of_set
from common.own.own_data import open_own_data
from common.task.known import task_of

TOKENS = HashedPieces(length=6, vocabulary=64)
RNG = np.random.default_rng(0)
Y = np.arange(40) % 4


def both(path: Path, *, series: bool = False) -> tuple[Marks, Marks]:
    """Return the marks that a device states, and those of the server."""
    name = path.name.partition(".")[0]
    dataset = load_dataset(name, path.parent, TOKENS, series=series)
    task = task_of(dataset)
    return open_own_data(path, task, TOKENS, None).marks, marks_of_set(dataset, task)


def write(path: Path, x: Any, y: Any, **more: Any) -> Path:
    parts = {"x_train": x[:30], "y_train": y[:30], "x_test": x[30:], "y_test": y[30:]}
    np.savez(path, **parts, **more)
    return path


@pytest.mark.parametrize(
    ("x", "series"),
    [
        (RNG.integers(0, 256, (40, 5, 4), np.uint8), False),
        (RNG.integers(0, 17, (40, 5, 4), np.uint8), False),
        (RNG.integers(0, 256, (40, 5, 4, 3), np.uint8), False),
        (RNG.random((40, 3, 5, 4)), False),
        (RNG.normal(size=(40, 7)).astype(np.float32), False),
        (RNG.normal(size=(40, 16, 3)), True),
        (RNG.integers(-4096, 4096, (40, 3, 16), np.int16), True),
    ],
    ids=["bytes", "small bytes", "colours", "floats", "rows", "steps first", "int16"],
)
def test_a_device_with_the_servers_file_states_the_servers_marks(
    x: np.ndarray, series: bool, tmp_path: Path
) -> None:
    its, servers = both(write(tmp_path / "mine.npz", x, Y), series=series)
    assert its == servers and its.samples != its.whole != ""
    turned, _ = both(write(tmp_path / "turned.npz", x, (Y + 1) % 4), series=series)
    assert turned.samples == its.samples and turned.whole != its.whole
    fewer, _ = both(write(tmp_path / "fewer.npz", x[:-1], Y[:-1]), series=series)
    assert fewer.samples != its.samples and fewer.whole != its.whole


def test_texts_and_names_of_classes(tmp_path: Path) -> None:
    rows = [
        {"text": f"word {k}", "label": ("bad", "good")[k % 2], "split": split}
        for k, split in enumerate(["train"] * 8 + ["test"] * 4)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    its, servers = both(tmp_path / "mine.jsonl")
    assert its == servers and its.whole


def test_there_are_none_of_no_sample() -> None:
    none = np.empty(0, np.uint64), np.empty(0, np.int64)
    assert marks_of(*none) == ("", "")
