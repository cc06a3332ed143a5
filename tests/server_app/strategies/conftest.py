"""What the tests of strategies share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.fleet.agreement import Agreement
from server_app.rounds.evaluation import server_evaluation
from server_app.rounds.loop import RoundLoop
from server_app.run_folder.checkpoint import decode, encode
from server_app.strategies import find_strategy
from server_app.strategies.base import ExpertStrategy

CLIENTS = 6
ROUNDS = 3

Exercise = Callable[..., tuple[ExpertStrategy, list[Any]]]


def strategy_of(config: dict[str, Any]) -> ExpertStrategy:
    settings = Settings.from_run_config(config)
    spec = model_spec(settings, dataset_of(settings))
    return find_strategy(settings.run.strategy)(settings, spec)


def step(loop: RoundLoop, grid: InlineGrid, server_round: int) -> Any:
    messages = loop.open(server_round, grid)
    for reply in loop.mailbox.exchange(grid, messages, 60.0):
        loop.accept(reply)
    return loop.close()


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
        first, again, resumed = (RoundLoop(strategy_of(config)) for _ in range(3))
        grid = InlineGrid(client_app, CLIENTS, config)
        records, states = [], []
        for server_round in range(1, ROUNDS + 1):
            records.append(step(first, grid, server_round))
            states.append(encode(first.state()))
            step(again, grid, server_round)
        resumed.load_state(decode(states[-2]))
        step(resumed, grid, ROUNDS)
        strategy = first.strategy
        assert isinstance(strategy, ExpertStrategy)
        for other in (again.strategy, resumed.strategy):
            assert other.model.keys() == strategy.model.keys()
            for part, vector in strategy.model.items():
                np.testing.assert_array_equal(other.model[part], vector, err_msg=part)
            np.testing.assert_equal(other.state(), strategy.state())
        assert not any(record.rejected for record in records)
        for part, vector in strategy.model.items():
            assert vector.dtype == np.float32
            assert np.isfinite(vector).all(), part
            shapes = [shape for _, shape in strategy.layout(part)]
            assert sum(int(np.prod(shape)) for shape in shapes) == vector.size
        evaluation = server_evaluation(strategy, Agreement(strategy.settings))
        assert evaluation is not None
        measured = evaluation(ROUNDS, strategy.arrays())
        assert measured is not None
        accuracy = measured["server_global"]
        assert isinstance(accuracy, float)
        assert 0 <= accuracy <= 1
        return strategy, records

    return exercised
