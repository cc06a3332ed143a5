"""What ``optimizer`` and ``lr-schedule`` say reaches everybody who trains."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from server_app.rounds.loop import RoundLoop
from tests.server_app.rounds.runs import run
from tests.server_app.strategies.conftest import Exercise, step, strategy_of

ADAMW: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 0.005,
    "lr-schedule": "cosine",
    "lr-warmup": 1,
    "clip-grad": 1.0,
}


@pytest.mark.parametrize("name", ["apfl", "fedavg", "fedrep", "kin"])
def test_digits_are_learnt_with_adamw(name: str, tmp_path: Path) -> None:
    config = {"strategy": name, "num-rounds": 4, "num-experts": 4, **ADAMW}
    _, rounds = run(tmp_path, config)
    assert rounds[-1]["client_local"] > 0.85


def test_a_resumed_run_has_the_rates_of_one_that_never_stopped(
    exercise: Exercise,
) -> None:
    exercise("fedavg", **{**ADAMW, "augment": "RandomCrop(padding=1)"})


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((each, {}) for each in ("apfl", "ditto", "fedavg-ft", "fedper", "fedrep")),
        *((each, {}) for each in ("flex-moe", "flwr:FedAvg", "ifca")),
        ("cent-moe", {"reserved-samples": 100}),
    ],
)
def test_the_rate_is_that_of_the_round(name: str, more: dict[str, Any]) -> None:
    config = {
        "strategy": name,
        "num-rounds": 2,
        "num-experts": 3,
        "train-samples": 200,
        "lr-schedule": "step:1:0.00001",
        **more,
    }
    loop = RoundLoop(strategy_of(config))
    grid = InlineGrid(client_app, 4, config)
    models = [loop.strategy.model.copy()]
    for server_round in (1, 2):
        assert step(loop, grid, server_round).rejected == {}
        models.append(loop.strategy.model.copy())
    first, second = (
        max(float(np.abs(after[part] - before[part]).max()) for part in before)
        for before, after in pairwise(models)
    )
    assert 0 < second < 0.001 * first
