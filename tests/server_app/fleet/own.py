"""Devices with data of their own, made by hand: what they say, and a task for them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.task import Moments, SeriesTask

TASK = SeriesTask(classes=("walk", "run", "fall"), channels=("ax", "ay"), length=8)

TOML = """
kind = "series"
classes = ["walk", "run", "fall"]
channels = ["ax", "ay"]
length = 8
"""


def task_file(folder: Path, more: str = "") -> str:
    """Write a task of windows of eight steps, two channels and three classes."""
    path = folder / "task.toml"
    path.write_text(TOML + more)
    return str(path)


def windows(seed: int, samples: int = 40, scale: float = 1.0) -> NDArray[np.float32]:
    """Return samples of a device: a good place for a scale to be wrong."""
    x = np.random.default_rng(seed).normal(size=(samples, 2, 8))
    x[:, 0] = 3 + scale * x[:, 0]
    x[:, 1] = 20 * scale * x[:, 1] - 70
    return x.astype("f4")


def moments(x: NDArray[Any]) -> dict[str, list[float]]:
    """Return the fields of a reply that state the moments of samples (n, 2, 8)."""
    of = Moments.of(np.moveaxis(x, 1, 0).reshape(2, -1))
    return {f"moments_{part}": list(map(float, v)) for part, v in vars(of).items()}


def device(name: str, x: NDArray[Any], **fields: Any) -> dict[str, Any]:
    """Return what a device says that trains on these and holds out a quarter more."""
    rows = len(x) + len(x) // 4
    return {
        "client": name,
        "partition_id": -1,
        "num_partitions": 0,
        "partition_hash": "",
        "num_examples": len(x),
        "rows": rows,
        "per_class": [rows - 10, 10, 0],
        "data_format": "csv",
        **moments(x),
        **fields,
    }
