"""Whole runs whose model is wrecked on purpose: back to the best round, or an end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from server_app.run_folder.checkpoint import read
from tests.server_app.rounds.runs import CLIENTS, run, settings_of
from tests.whole_runs import fill, lying, rounds_of, serve

WRECKED_IN = 4
CONFIG = settings_of(
    partition="iid",
    **{"local-epochs": 3, "num-rounds": 8, "norm-bound": 0.0, "max-update": 1e6},
)


def wrecking(value: float, rounds: tuple[int, ...], clients: int = 1) -> ClientApp:
    """Return the real ClientApp in which some clients send one value everywhere."""

    def wreck(content: RecordDict, server_round: int) -> None:
        if server_round in rounds:
            fill(content, value)

    return lying(wreck, liars=range(clients))


def test_a_wrecked_model_goes_back_to_the_best_round(tmp_path: Path) -> None:
    _, rounds = run(tmp_path, CONFIG, wrecking(2.0, (WRECKED_IN,)))
    accuracy = [each["server_global"] for each in rounds]
    best = int(np.argmax(accuracy[: WRECKED_IN - 1]))
    low = accuracy[WRECKED_IN - 1 : WRECKED_IN + 2]
    assert max(low) < 0.1 + (accuracy[best] - 0.1) / 2  # the attack works
    told = rounds[WRECKED_IN + 1]["notes"][-1]
    assert told.endswith(f"back to the model of round {best + 1}")
    assert accuracy[WRECKED_IN + 2] > accuracy[best] - 0.2


def test_the_best_checkpoint_outlives_the_newest(tmp_path: Path) -> None:
    config = {**CONFIG, "num-rounds": 6, "on-collapse": "go-on"}
    folder, rounds = run(tmp_path, config, wrecking(2.0, (3,)))
    accuracy = [each["server_global"] for each in rounds]
    kept = read(folder / "checkpoints" / "best.ckpt")
    assert kept["completed"] == int(np.argmax(accuracy)) + 1 < 3
    assert not (folder / "checkpoints" / "round-000001.ckpt").exists()
    assert "on-collapse is go-on" in rounds[4]["notes"][-1]


def test_a_run_can_end_there_and_stays_ended(tmp_path: Path) -> None:
    config = {**CONFIG, "on-collapse": "stop"}
    folder, rounds = run(tmp_path, config, wrecking(2.0, (WRECKED_IN,)))
    assert len(rounds) == WRECKED_IN + 2
    facts = json.loads((folder / "run.json").read_text())
    assert facts["stopped"].startswith("collapsed: server_global was")
    again = {**config, "resume-from": str(folder)}
    assert len(resumed(folder, again)) == WRECKED_IN + 2
    assert len(resumed(folder, {**again, "on-collapse": "go-on"})) == 8


def resumed(folder: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    serve(config, InlineGrid(client_app, CLIENTS, config))
    return rounds_of(folder)


@pytest.mark.parametrize("follows", ["roll-back", "go-on"])
def test_where_most_are_refused_few_do_not_decide(tmp_path: Path, follows: str) -> None:
    config = {**CONFIG, "num-rounds": 4, "max-update": 1.0, "on-collapse": follows}
    app = wrecking(2.0, (3,), clients=CLIENTS - 2)
    _, rounds = run(tmp_path, config, app)
    assert rounds[2]["refused"] == CLIENTS - 2
    assert rounds[2]["merged"] is False and sum(rounds[2]["load"]) == 0
    assert "round not merged: 4 of 6 replies were refused" in rounds[2]["notes"]
    accuracy = [each["server_global"] for each in rounds]
    best = int(np.argmax(accuracy[:2])) + 1
    if follows == "roll-back":
        assert rounds[2]["notes"][-1] == (
            f"collapsed: 4 of 6 replies were refused; back to the model of round {best}"
        )
    assert rounds[3]["merged"] and rounds[3]["refused"] == 0


def test_half_is_no_majority(tmp_path: Path) -> None:
    config = {**CONFIG, "num-rounds": 3, "max-update": 1.0}
    _, rounds = run(tmp_path, config, wrecking(2.0, (3,), clients=CLIENTS // 2))
    assert rounds[2]["merged"] and rounds[2]["refused"] == CLIENTS // 2


def test_going_back_is_remembered_by_a_resumed_run(tmp_path: Path) -> None:
    """Cut after the roll-back or not: the same model."""
    app, finals = wrecking(2.0, (WRECKED_IN,)), []
    for number, cut in enumerate((8, WRECKED_IN + 2)):
        config = {
            **CONFIG,
            "num-rounds": cut,
            "state-dir": str(tmp_path / f"state{number}"),
        }
        folder, _ = run(tmp_path / str(number), config, app)
        if cut < 8:
            again = {**config, "num-rounds": 8, "resume-from": str(folder)}
            resumed(folder, again)
        finals.append(load_file(folder / "model.safetensors"))
    for name, tensor in finals[0].items():
        np.testing.assert_array_equal(tensor, finals[1][name])
