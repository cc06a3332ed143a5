"""What the tests of strategies share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from client_app.app import app as client_app
from common.config import Settings
from common.inline_grid import InlineGrid
from common.shape import dataset_of, model_spec
from server_app.checkpoint import decode, encode
from server_app.evaluation import ServerEvaluation
from server_app.strategies import find_strategy
from server_app.strategies.base import ExpertStrategy

CLIENTS = 6
ROUNDS = 3

Exercise = Callable[..., tuple[ExpertStrategy, list[Any]]]


def strategy_of(config: dict[str, Any]) -> ExpertStrategy:
    settings = Settings.from_run_config(config)
    spec = model_spec(settings, dataset_of(settings))
    return find_strategy(settings.run.strategy)(settings, spec)


def step(strategy: ExpertStrategy, grid: InlineGrid, server_round: int) -> Any:
    messages = strategy.rounds.open(server_round, grid)
    for reply in strategy.rounds.mailbox.exchange(grid, messages, 60.0):
        strategy.rounds.accept(reply)
    return strategy.rounds.close()


@pytest.fixture
def exercise() -> Exercise:
    """Run three rounds; check that they can be repeated and resumed, bit for bit.

    Only for strategies whose clients keep nothing between rounds.
    """

    def exercised(name: str, **changes: Any) -> tuple[ExpertStrategy, list[Any]]:
        config = {
            "strategy": name,
            "num-experts": 3,
            "num-rounds": ROUNDS,
            "train-samples": 300,
            "local-epochs": 1,
            **changes,
        }
        first, again, resumed = (strategy_of(config) for _ in range(3))
        grid = InlineGrid(client_app, CLIENTS, config)
        records, states = [], []
        for server_round in range(1, ROUNDS + 1):
            records.append(step(first, grid, server_round))
            states.append(encode(first.rounds.state()))
            step(again, grid, server_round)
        resumed.rounds.load_state(decode(states[-2]))
        step(resumed, grid, ROUNDS)
        for other in (again, resumed):
            assert other.model.keys() == first.model.keys()
            for part, vector in first.model.items():
                np.testing.assert_array_equal(other.model[part], vector, err_msg=part)
            np.testing.assert_equal(other.state(), first.state())
        assert not any(record.rejected for record in records)
        for part, vector in first.model.items():
            assert vector.dtype == np.float32
            assert np.isfinite(vector).all(), part
            shapes = [shape for _, shape in first.layout(part)]
            assert sum(int(np.prod(shape)) for shape in shapes) == vector.size
        evaluation = ServerEvaluation(first, dataset_of(first.settings), first.settings)
        accuracy = evaluation(ROUNDS, first.arrays())["server_global"]
        assert isinstance(accuracy, float)
        assert 0 <= accuracy <= 1
        return first, records

    return exercised
