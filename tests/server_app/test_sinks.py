"""Sinks: names that are refused, failures that do not end a run, the real libraries."""

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from common.config import Settings
from common.sections import SettingsError
from server_app import sinks
from server_app.simulate import simulate
from server_app.sinks import SINKS, Sinks, sink_names
from server_app.strategies import check_run_config


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        find_spec(package) is None, reason=f"{package} is not installed"
    )


def test_an_unknown_sink_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match=r"'tensorbord' is unknown.*'tensorboard'"):
        check_run_config({"sinks": "tensorbord"})


def test_a_library_that_is_missing_is_named_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(SINKS, "wandb", (sinks.WandB, "not_a_package_at_all"))
    with pytest.raises(SettingsError, match="pip install not_a_package_at_all"):
        simulate({"sinks": "wandb", "output-dir": str(tmp_path)}, 2)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_imported_that_was_not_asked_for() -> None:
    assert sink_names(Settings().run.sinks) == []
    assert sink_names(" , ") == []
    assert "mlflow" not in sys.modules
    assert "wandb" not in sys.modules


class Recorder:
    """Takes scalars until the third round, in which it breaks."""

    def __init__(self, folder: Path, name: str, config: Any, resumed: int) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.closed = False
        RECORDERS.append(self)

    def log(self, server_round: int, scalars: Mapping[str, float]) -> None:
        if server_round == 3:
            raise ConnectionError("the server is gone\nand more")
        self.seen.append((server_round, dict(scalars)))

    def close(self) -> None:
        self.closed = True


RECORDERS: list[Recorder] = []


def test_a_sink_that_fails_is_given_up_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    RECORDERS.clear()
    monkeypatch.setitem(SINKS, "recorder", (Recorder, "json"))
    simulate(
        {
            "sinks": "recorder, recorder",
            "num-rounds": 4,
            "train-samples": 300,
            "output-dir": str(tmp_path),
        },
        4,
    )
    [recorder] = RECORDERS
    [folder] = tmp_path.iterdir()
    lines = [json.loads(r) for r in (folder / "metrics.jsonl").open()]
    assert len(lines) == 4
    assert [number for number, _ in recorder.seen] == [1, 2]
    for (_, scalars), logged in zip(recorder.seen, lines, strict=False):
        for key in ("server_global", "client_local", "cv_cumulative", "bytes_up"):
            assert scalars[key] == logged[key]


def test_a_sink_that_cannot_be_opened_ends_the_run_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any) -> Recorder:
        raise OSError("no space")

    monkeypatch.setitem(SINKS, "recorder", (broken, "json"))
    with pytest.raises(SettingsError, match="'recorder' cannot be opened: OSError"):
        Sinks(["recorder"], tmp_path, "run", {}, 0)


def two_legs(name: str, folder: Path) -> None:
    """Log rounds 1 to 3, then resume after round 2 and log 3 and 4."""
    config: dict[str, str | float] = {"lr": 0.1, "strategy": "random"}
    for resumed, rounds in ((0, (1, 2, 3)), (2, (3, 4))):
        sink = SINKS[name][0](folder, folder.name, config, resumed)
        for server_round in rounds:
            sink.log(server_round, {"server_global": server_round / (10 + resumed)})
        sink.close()


@needs("tensorboard")
def test_tensorboard_gets_every_round_once(tmp_path: Path) -> None:
    two_legs("tensorboard", tmp_path)
    accumulator = "tensorboard.backend.event_processing.event_accumulator"
    events = import_module(accumulator).EventAccumulator(str(tmp_path / "tensorboard"))

    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("server_global")]
    expected = [(1, 0.1), (2, 0.2), (3, 3 / 12), (4, 4 / 12)]
    assert found == [(step, pytest.approx(value)) for step, value in expected]


@needs("mlflow")
def test_mlflow_goes_on_with_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")

    folder = tmp_path / "run-a"
    folder.mkdir()
    two_legs("mlflow", folder)
    client = import_module("mlflow").MlflowClient(
        tracking_uri=(tmp_path / "mlruns").as_uri()
    )
    experiment = client.get_experiment_by_name("expertfleet")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "strategy": "random"}
    history = client.get_metric_history(run.info.run_id, "server_global")
    assert {m.step for m in history} == {1, 2, 3, 4}


@needs("wandb")
def test_wandb_offline_writes_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    two_legs("wandb", tmp_path)
    written = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert written
    assert b"server_global" in written[0].read_bytes()
