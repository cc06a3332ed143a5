"""The server's test set beside data of a device's own, or what looks like it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from tests.whole_runs import rounds_of, serve

TESTS = 12


def write(folder: Path, seed: int, *, turned: int = 0, tests: int = TESTS) -> str:
    """Write a set with samples of its own and the test samples of all."""
    folder.mkdir(parents=True)

    def some(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(rows) % 3
        x = np.random.default_rng(seed).normal(size=(rows, 4)) + y[:, None]
        return x, (y + turned) % 3

    x_train, y_train = some(seed, 60)
    x_test, y_test = some(0, TESTS)
    np.savez(
        folder / "mine.npz",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test[:tests],
        y_test=y_test[:tests],
    )
    return str(folder)


def last_round(tmp_path: Path, **of_b: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the record of a round with device a and another, and ``run.json``."""
    config: dict[str, Any] = {
        **{"dataset": "mine", "data-dir": write(tmp_path / "server", 1)},
        **{"num-rounds": 1, "num-experts": 2, "min-replies": 1, "local-epochs": 1},
        "output-dir": str(tmp_path / "out"),
    }
    grid = InlineGrid(client_app, 2, config)
    folders = {
        "a": write(tmp_path / "a", 2),
        "b": write(tmp_path / "b", 3, **of_b),
    }
    for context, (name, folder) in zip(
        grid.contexts.values(), folders.items(), strict=True
    ):
        context.node_config = {"name": name, "data-dir": folder}
    serve(config, grid)
    [run] = (tmp_path / "out").iterdir()
    [record] = rounds_of(run)
    return record, json.loads((run / "run.json").read_text())


def test_they_are_measured_on_the_servers_test_set(tmp_path: Path) -> None:
    record, facts = last_round(tmp_path)
    assert not facts["refused"] and not record["notes"]
    values = [client["client_global"] for client in record["clients"]]
    # Of twelve samples, each tested with its own copy of them.
    assert len(values) == 2
    assert all(value * TESTS == pytest.approx(round(value * TESTS)) for value in values)
    assert record["client_global"] == pytest.approx(sum(values) / 2)


def test_the_same_samples_in_another_coding_are_refused(tmp_path: Path) -> None:
    record, facts = last_round(tmp_path, turned=1)
    assert [client["client"] for client in record["clients"]] == ["a"]
    assert "it numbers the classes in another way" in facts["refused"]["b"]
    assert record["client_global"] is not None


def test_nobody_is_measured_where_one_has_another_test_set(tmp_path: Path) -> None:
    record, facts = last_round(tmp_path, tests=1)
    assert not facts["refused"]
    assert [client["client_global"] for client in record["clients"]] == [None, None]
    assert record["client_global"] is None
    assert any("b: its test set is not the server's" in n for n in record["notes"])
