"""A run is only continued as what it was: the same clients, the same data."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import SettingsError
from common.inline_grid import InlineGrid
from server_app.commands.simulate import simulate
from server_app.launcher.config import RunConfigError


def write(folder: Path, seed: int, rows: int = 200) -> None:
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 3
    x = (40 * y[:, None, None] + rng.integers(0, 99, (rows, 4, 4))).astype(np.uint8)
    half = rows // 2
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / "blobs.npz",
        x_train=x[:half],
        y_train=y[:half],
        x_test=x[half:],
        y_test=y[half:],
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "data", 1)
    run(tmp_path, 4, rounds=1)
    return tmp_path


def run(root: Path, clients: int, rounds: int) -> dict[str, Any]:
    earlier = [str(path.parent) for path in root.glob("out/*/run.json")]
    config: dict[str, Any] = {
        "dataset": "blobs",
        "data-dir": str(root / "data"),
        "partition": "iid",
        "num-experts": 4,
        "local-epochs": 1,
        "output-dir": str(root / "out"),
        "state-dir": str(root / "state"),
        "num-rounds": rounds,
        **({"resume-from": earlier[0]} if earlier else {}),
    }
    simulate(config, clients)
    [path] = root.glob("out/*/run.json")
    lines = (path.parent / "metrics.jsonl").read_text().splitlines()
    return {**json.loads(path.read_text()), "rounds": list(map(json.loads, lines))}


@pytest.mark.parametrize("clients", [2, 6])
def test_another_number_of_clients_is_an_error_of_settings(
    root: Path, clients: int
) -> None:
    said = f"clients = {clients} is not allowed: the run .* has 4 clients"
    with pytest.raises(RunConfigError, match=said):
        run(root, clients, rounds=2)
    assert len(run(root, 4, rounds=2)["rounds"]) == 2  # and nothing was lost by it


def test_fewer_rounds_than_are_done_are_said(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(root, 4, rounds=2)
    assert len(run(root, 4, rounds=1)["rounds"]) == 2
    assert "num-rounds = 1, but 2 rounds are done: the model is of" in caplog.text


@pytest.mark.parametrize("rows", [200, 300])
def test_other_data_under_the_same_name_are_an_error_of_settings(
    root: Path, rows: int
) -> None:
    write(root / "data", 2, rows)
    with pytest.raises(SettingsError, match="data of dataset 'blobs' in data-dir"):
        run(root, 4, rounds=2)
    write(root / "data", 1)
    assert len(run(root, 4, rounds=2)["rounds"]) == 2


def with_devices(monkeypatch: pytest.MonkeyPatch, **node: dict[str, Any]) -> None:
    class Grid(InlineGrid):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "closed": False})
            for number, context in self.contexts.items():
                own = {"name": f"pi{number - 1}"}
                context.node_config |= own | node.get(own["name"], {})

    monkeypatch.setattr("common.inline_grid.InlineGrid", Grid)


def test_another_file_is_data_of_a_devices_own_and_another_cut_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", 1)
    write(tmp_path / "other", 2)
    with_devices(
        monkeypatch,
        pi1={"data-dir": str(tmp_path / "other")},
        pi2={"num-partitions": 5},
    )
    found = run(tmp_path, 4, rounds=1)
    assert sorted(found["refused"]) == ["pi2"]
    assert "one of 5 shares" in found["refused"]["pi2"]
    [record] = found["rounds"]
    names = [client["client"] for client in record["clients"]]
    assert sorted(names) == ["pi0", "pi1", "pi3"]
    assert record["client_global"] is None  # pi1 has no test set that others have


def test_data_of_a_devices_own_may_grow_and_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", 1)
    write(tmp_path / "own", 2)
    own = {"data-dir": str(tmp_path / "own"), "num-partitions": 1, "partition-id": 0}
    with_devices(monkeypatch, pi1=own)
    run(tmp_path, 2, rounds=1)
    write(tmp_path / "own", 3, rows=300)
    found = run(tmp_path, 2, rounds=2)
    assert found["refused"] == {}
    assert found["rounds"][0]["notes"] == [
        "pi1: its test set is not the server's: make sure that both number the classes "
        "alike; client_global is not reported in a round with it"
    ]
    for record in found["rounds"]:
        assert record["client_global"] is None
        assert [c["client_global"] for c in record["clients"]] == [None, None]
        assert record["client_local"] is not None
    # Of 150 and 100 samples; which are held out is up to what they are.
    said = re.compile(
        r"pi1: its data have changed, (\d+) samples to train on instead of (\d+)"
    )
    [numbers] = filter(None, map(said.fullmatch, found["rounds"][1]["notes"]))
    assert [int(n) for n in numbers.groups()] == pytest.approx([120, 80], abs=8)
