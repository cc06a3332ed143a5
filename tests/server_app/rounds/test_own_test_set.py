"""The server's own test set, where a task says what samples are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import DataError
from common.task import Moments
from server_app.commands.simulate import simulate
from server_app.run_config import check_run_config
from server_app.run_source import RunSource

TASK = """
kind = "table"
classes = ["low", "high"]
columns = ["a", "b"]
"""


def write_table(path: Path, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Write rows whose class is whether the first column is above 5."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.uniform([0.0, 100.0], [10.0, 900.0], (rows, 2)), 3)
    y = (x[:, 0] > 5).astype(int)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{a},{b},{('low', 'high')[c]}" for (a, b), c in zip(x, y, strict=True)]
    path.write_text("\n".join(["a,b,label", *lines]))
    return x, y


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "task.toml").write_text(TASK)
    for seed, name in enumerate(("east", "west")):
        write_table(tmp_path / "sites" / name / "rows.csv", 120, seed)
    return {
        "task": str(tmp_path / "task.toml"),
        "data-dir": str(tmp_path / "sites"),
        "partition": "folders",
        "num-experts": 2,
        "num-rounds": 3,
        "output-dir": str(tmp_path / "out"),
    }


def test_it_is_measured_with_the_fleet_s_scale(
    config: dict[str, Any], tmp_path: Path
) -> None:
    x, y = write_table(tmp_path / "test.csv", 50, 7)
    simulate({**config, "test-data": str(tmp_path / "test.csv")}, 2)
    [run] = (tmp_path / "out").iterdir()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["fleet"] is None and last["fleet_clients"] is None

    servable = RunSource(run).load()
    answers = servable.predict(x.astype(np.float32)).classes
    assert last["server_global"] == pytest.approx((answers == y).mean())
    hits = [(answers[y == k] == k).mean() for k in range(2)]
    assert last["recall"] == pytest.approx(hits)

    # The scale is that of what the devices train on: about a uniform column's.
    scale = json.loads((run / "run.json").read_text())["task"]["scale"]
    both = [write_table(tmp_path / "again.csv", 120, seed)[0] for seed in (0, 1)]
    whole = Moments.of(np.concatenate(both).T)
    np.testing.assert_allclose(scale["mean"], whole.mean, rtol=0.1)
    np.testing.assert_allclose(scale["std"], whole.std, rtol=0.1)


def test_one_that_cannot_be_used_is_told_before_anything_runs(
    config: dict[str, Any], tmp_path: Path
) -> None:
    bad = tmp_path / "test.csv"
    bad.write_text("a,b,label\n1,2,medium\n")
    with pytest.raises(DataError, match=r"class 'medium' is none of the task's"):
        check_run_config({**config, "test-data": str(bad)}, 2)


def test_it_goes_with_a_task(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="test-data = 'x' is not allowed without task"):
        check_run_config({"test-data": "x"})
