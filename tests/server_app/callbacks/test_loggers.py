"""Loggers: names that are refused, and what the real libraries are given."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from common.errors import SettingsError
from common.settings import Settings
from server_app.callbacks.callbacks import CALLBACKS, find_callbacks
from server_app.callbacks.hooks import RunStart
from server_app.callbacks.loggers import WandB
from server_app.commands.simulate import simulate
from server_app.run_config import check_run_config
from tests.server_app.run_folder.support import record_of

ANY: Any = None


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        find_spec(package) is None, reason=f"{package} is not installed"
    )


def test_an_unknown_callback_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        SettingsError, match=r"callbacks = 'tensorbord' .*'tensorboard'"
    ):
        check_run_config({"callbacks": "mlflow, tensorbord"})


def test_a_library_that_is_missing_is_named_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(WandB, "package", "not_a_package_at_all")
    with pytest.raises(SettingsError, match="pip install not_a_package_at_all"):
        simulate({"callbacks": "wandb", "output-dir": str(tmp_path)}, 2)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_imported_that_was_not_asked_for() -> None:
    assert find_callbacks(Settings()) == {}
    assert find_callbacks(Settings.from_run_config({"callbacks": " , "})) == {}
    assert "mlflow" not in sys.modules
    assert "wandb" not in sys.modules


def two_legs(name: str, folder: Path) -> None:
    """Log rounds 1 to 3, then resume after round 2 and log 3 and 4."""
    settings = Settings.from_run_config({"lr": 0.1, "strategy": "random"})
    for completed, rounds in ((0, (1, 2, 3)), (2, (3, 4))):
        run = RunStart(path=folder, name=folder.name, completed=completed)
        callback = CALLBACKS.find(name)(settings)
        callback.on_run_begin(run, ANY)
        for number in rounds:
            value = number / (10 + completed)
            callback.on_round_end(record_of(number, server_global=value), ANY)
        callback.on_run_end()


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
    assert (run.data.params["lr"], run.data.params["strategy"]) == ("0.1", "random")
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
    # Of a leg that was broken off, what was still on its way may be lost.
    assert any(b"server_global" in path.read_bytes() for path in written)
