"""What the table says beside its lines."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.settings import Settings
from server_app.callbacks.hooks import RunStart
from server_app.callbacks.matrix_files import ConfusionMatrix
from server_app.callbacks.table import Table
from tests.server_app.run_folder.support import record_of

ANY: Any = None


@pytest.fixture
def run(tmp_path: Path) -> RunStart:
    facts = {"run": "r", "settings": {}, "task": {"classes": ["ok", "crack", "rust"]}}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    return RunStart(path=tmp_path, name="r")


def said(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if word in r.getMessage()]


def test_recall_by_class_is_said_at_the_end_the_worst_first(
    run: RunStart, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    table = Table(Settings())
    table.on_run_begin(run, ANY)
    shares = {"recall": [0.999, 0.0, None], "balanced": 0.4995}
    table.on_round_end(record_of(1, recall=[1.0, 1.0, None], balanced=1.0), ANY)
    table.on_round_end(record_of(2, **shares), ANY)
    table.on_round_end(record_of(3), ANY)  # not evaluated
    assert not said(caplog, "recall of")
    table.on_run_end()
    assert said(caplog, "recall of") == [
        "recall of the server's predictor, round 2: crack 0.0000, ok 0.9990; "
        "balanced accuracy 0.4995"
    ]


def test_of_many_classes_the_worst_are_named(
    run: RunStart, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shares = [k / 20 for k in range(20)]
    line = record_of(4, local_recall=shares, local_balanced=0.475).to_json()
    table = Table(Settings())
    before = RunStart(path=run.path, name="r", completed=4, history=[line])
    table.on_run_begin(before, ANY)
    table.on_run_end()
    [text] = said(caplog, "recall of the clients' models")
    assert "round 4: 0 0.0000, 1 0.0500," in text
    assert "11 0.5500 (the worst of 20); balanced accuracy 0.4750" in text
    assert "12 0.6" not in text


def test_who_measured_and_what_it_cost_is_said(
    run: RunStart, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    table = Table(Settings())
    asked = {"fleet_clients": ["cam", "yard"], "fleet_bytes": 2_500_000}
    table.on_round_end(record_of(1, fleet=0.5, **asked), ANY)
    assert said(caplog, "measured by 2 devices (cam, yard), 2.50 MB sent and received")


def test_the_newest_confusion_matrix_is_kept(run: RunStart) -> None:
    callback = ConfusionMatrix(Settings())
    callback.on_run_begin(run, ANY)
    for number, matrix in ((1, [[9, 1], [0, 0]]), (2, [[8, 2], [1, 3]]), (3, None)):
        found = None if matrix is None else np.array(matrix)
        callback.on_round_end(record_of(number, confusion=found), ANY)
    with np.load(run.path / "confusion.npz") as file:
        assert file["confusion"].tolist() == [[8, 2], [1, 3]]
        assert int(file["round"]) == 2
