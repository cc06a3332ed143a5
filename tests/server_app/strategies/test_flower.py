"""Flower's own strategies on the dense model, through our rounds and through theirs."""

import json
import random
from pathlib import Path
from typing import Any

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from safetensors.numpy import load_file

from client_app.app import app as client_app
from common import wire
from common.errors import SettingsError
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.assignment import ExpertLayers
from server_app.commands.simulate import simulate
from server_app.rounds.loop import RoundLoop
from server_app.run_config import check_run_config
from server_app.strategies import find_strategy
from server_app.strategies.base import ExpertStrategy, View
from server_app.strategies.flower import FlowerStrategy, flower_names

CONFIG: dict[str, Any] = {
    "train-samples": 300,
    "local-epochs": 1,
    "num-rounds": 2,
    "test-samples": 100,
}
ROBUST = ["Krum", "FedMedian", "FedTrimmedAvg"]
ADAPTIVE = ["FedAdam", "FedYogi", "FedAdagrad"]
OTHERS = ["FedAvg", "FedProx", "MultiKrum", "Bulyan", "FedAvgM", "QFedAvg"]


def strategy_of(name: str, **changes: Any) -> ExpertStrategy:
    settings = Settings.from_run_config({**CONFIG, "strategy": name, **changes})
    spec = model_spec(settings, dataset_of(settings))
    return find_strategy(name)(settings, spec)


def step(loop: RoundLoop, grid: InlineGrid, server_round: int) -> None:
    for reply in grid.send_and_receive(loop.open(server_round, grid)):
        loop.accept(reply)
    loop.close()


@pytest.mark.parametrize("name", [*ROBUST, *ADAPTIVE, *OTHERS])
def test_each_runs_is_repeated_and_resumed_bit_for_bit(
    name: str, exercise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Bulyan and QFedAvg collect garbage once per array: seconds in a large process.
    monkeypatch.setattr("gc.collect", lambda: 0)
    strategy, records = exercise(f"flwr:{name}")
    assert set(strategy.model) == {"extractor", "expert.0"}
    assert [record.load for record in records] == [[6]] * 3


def test_all_of_them_are_tested() -> None:
    assert sorted([*ROBUST, *ADAPTIVE, *OTHERS]) == sorted(flower_names())


def test_the_run_log_is_like_any_other(tmp_path: Path) -> None:
    config = {**CONFIG, "strategy": "flwr:FedAdam", "output-dir": str(tmp_path)}
    simulate(config, 4)
    [folder] = tmp_path.iterdir()
    rounds = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [record["round"] for record in rounds] == [1, 2]
    tensors = load_file(folder / "model.safetensors")
    sent = 4 * sum(tensor.nbytes for tensor in tensors.values())
    for record in rounds:
        for key in ("server_global", "client_global", "client_local", "train_loss"):
            assert 0 <= record[key] <= 3
        assert sent < record["bytes_down"] < 1.1 * sent
        assert sent < record["bytes_up"] < 1.1 * sent
        assert len(record["clients"]) == 4
    assert set(tensors) >= {"extractor.hidden.weight", "expert.0.out.bias"}
    assert json.loads((folder / "run.json").read_text())["settings"]["strategy"]


def test_flowers_average_is_ours() -> None:
    models = []
    for name in ("fedavg", "flwr:FedAvg"):
        strategy = strategy_of(name)
        grid = InlineGrid(client_app, 4, CONFIG)
        step(RoundLoop(strategy), grid, 1)
        models.append(strategy.model)
    for part, vector in models[0].items():
        np.testing.assert_allclose(models[1][part], vector, atol=1e-6)


def test_one_step_of_adam_by_hand() -> None:
    # Round 1 of FedAdam: m = (1 - b1) d, v = (1 - b2) d^2, step eta_1 m / (v^.5 + tau)
    # with eta_1 = eta sqrt(1 - b2^2) / (1 - b1^2), as Flower counts rounds.
    average, adam = strategy_of("flwr:FedAvg"), strategy_of("flwr:FedAdam")
    before = dict(adam.model)
    for strategy in (average, adam):
        step(RoundLoop(strategy), InlineGrid(client_app, 4, CONFIG), 1)
    b1, b2, eta, tau = 0.9, 0.99, 0.1, 1e-3
    rate = eta * np.sqrt(1 - b2**2) / (1 - b1**2)
    for part, start in before.items():
        delta = average.model[part].astype(np.float64) - start
        step_taken = rate * (1 - b1) * delta / (np.sqrt((1 - b2) * delta**2) + tau)
        np.testing.assert_allclose(
            adam.model[part] - start, step_taken, rtol=1e-3, atol=1e-5
        )


def test_krum_takes_one_clients_model() -> None:
    strategy = strategy_of("flwr:Krum", **{"strategy-options": "num-malicious-nodes=1"})
    grid = InlineGrid(client_app, 5, CONFIG)
    merge, trained = strategy.merge, []

    def watched(reply: Any) -> None:
        trained.append(strategy.model["expert.0"] + reply.deltas["expert.0"])
        merge(reply)

    strategy.merge = watched  # type: ignore[method-assign]
    step(RoundLoop(strategy), grid, 1)
    distances = [np.abs(strategy.model["expert.0"] - w).max() for w in trained]
    assert sorted(distances)[0] < 1e-6 < sorted(distances)[1]


def test_proximal_mu_reaches_the_clients() -> None:
    options = {"strategy-options": "proximal-mu=0.3"}
    strategy = strategy_of("flwr:FedProx", **options)
    messages = RoundLoop(strategy).open(1, InlineGrid(client_app, 2, CONFIG))
    orders = [wire.decode_order(message.content) for message in messages]
    assert [order.proximal for order in orders] == [0.3, 0.3]


def test_our_settings_decide_who_takes_part() -> None:
    strategy = strategy_of("flwr:FedAvg", **{"clients-per-round": 1})
    state = random.getstate()
    messages = RoundLoop(strategy).open(1, InlineGrid(client_app, 4, CONFIG))
    assert len(messages) == 1
    assert random.getstate() == state


def test_a_round_without_clients_does_not_wait_and_changes_nothing() -> None:
    strategy = strategy_of("flwr:FedAvg")
    before = dict(strategy.model)
    empty = View(
        server_round=1,
        clients=np.empty(0, np.int64),
        num_clients=3,
        budgets=np.empty(0, np.int64),
        layers=ExpertLayers(num_experts=1),
        previous=np.empty((0, 1), bool),
        at_work=np.empty((0, 1), bool),
        profiles=(),
        fleet=(),
        rng=np.random.default_rng(0),
    )
    assert strategy.plan(empty).assignment.shape == (0, 1)
    strategy.finish()
    for part, vector in before.items():
        assert strategy.model[part] is vector


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("flwr:FedAdm", "", "did you mean 'FedAdam'?"),
        ("flwr:FedXgbBagging", "", "choose flwr: and one of"),
        ("flwr:FedAdam", "bta_1=0.1", "did you mean 'beta-1'?"),
        ("flwr:FedAdam", 'eta="x"', "eta = 'x'"),
        ("flwr:FedAdam", "fraction-train=0.5", "set clients-per-round instead"),
        ("flwr:FedTrimmedAvg", "beta=0.7", "range [0, 0.5)"),
        ("flwr:FedAvg", 'weighted_by_key="x"', "this name is unknown"),
        (
            "flwr.serverapp.strategy:DifferentialPrivacyServerSideFixedClipping",
            "",
            "parameter 'strategy' is neither",
        ),
        (
            "common.settings:Settings",
            "",
            "is not an ExpertStrategy or a Flower Strategy",
        ),
        (".relative:Strategy", "", "is not allowed: choose from anchor-moe"),
    ],
)
def test_wrong_names_and_options_end_in_one_line(
    name: str, options: str, text: str
) -> None:
    with pytest.raises(SettingsError) as error:
        check_run_config({"strategy": name, "strategy-options": options})
    assert text in str(error.value)
    assert "\n" not in str(error.value)


class FirstHalf(flower.FedAvg):
    """A user's Flower strategy: every second node, and a model of its own for each."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def configure_train(
        self, server_round: int, arrays: Any, config: Any, grid: Any
    ) -> Any:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        chosen = sorted(messages, key=lambda m: m.metadata.dst_node_id)[::2]
        for number, message in enumerate(chosen):
            scaled = {
                part: Array((self.scale + number) * array.numpy())
                for part, array in arrays.items()
            }
            message.content = message.content.copy()
            message.content["arrays"] = ArrayRecord(scaled)
        return chosen


def test_a_users_flower_strategy_chooses_clients_and_content() -> None:
    name = f"{__name__}:FirstHalf"
    found = find_strategy_of(name)
    settings = Settings.from_run_config({**CONFIG, "strategy-options": "scale=2.0"})
    strategy = found(settings, model_spec(settings, dataset_of(settings)))
    grid = InlineGrid(client_app, 4, CONFIG)
    loop = RoundLoop(strategy)
    messages = loop.open(1, grid)
    assert sorted(m.metadata.dst_node_id for m in messages) == [1, 3]
    for message, scale in zip(messages, (2.0, 3.0), strict=True):
        [record] = message.content.array_records.values()
        np.testing.assert_array_equal(
            record["expert.0"].numpy(),
            (scale * strategy.model["expert.0"]).astype(np.float32),
        )
    for reply in grid.send_and_receive(messages):
        loop.accept(reply)
    assert loop.close().rejected == {}


def find_strategy_of(name: str) -> type[FlowerStrategy]:
    from server_app.strategies.flower import adapted

    return adapted(FirstHalf, name)


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "Krum", "FedMedian"])
def test_flowers_own_loop_runs_our_client_app(name: str) -> None:
    """A user's own ServerApp, without anything of ours but the ClientApp."""
    initial = strategy_of("fedavg")
    result = getattr(flower, name)().start(
        grid=InlineGrid(client_app, 3, CONFIG),
        initial_arrays=initial.arrays(),
        num_rounds=2,
    )
    # Two rounds: FedAdam sends float64 from the second one on.
    assert set(result.train_metrics_clientapp) == {1, 2}
    assert result.train_metrics_clientapp[2]["train-loss"] > 0
    assert 0 <= result.evaluate_metrics_clientapp[2]["client-local"] <= 1
    assert set(result.arrays) == {"extractor", "expert.0"}


def test_our_strategies_run_under_flowers_loop_too() -> None:
    strategy = strategy_of("flwr:FedYogi")
    result = flower.Strategy.start(
        strategy,
        grid=InlineGrid(client_app, 3, CONFIG),
        initial_arrays=strategy.arrays(),
        num_rounds=2,
    )
    ours = strategy_of("flwr:FedYogi")
    loop, grid = RoundLoop(ours), InlineGrid(client_app, 3, CONFIG)
    for server_round in (1, 2):
        step(loop, grid, server_round)
    for part, vector in ours.model.items():
        np.testing.assert_array_equal(result.arrays[part].numpy(), vector)


def test_a_reply_that_is_refused_never_reaches_the_strategy() -> None:
    strategy = strategy_of("flwr:FedAvg")
    grid = InlineGrid(client_app, 3, CONFIG)
    loop = RoundLoop(strategy)
    replies: list[Message] = grid.send_and_receive(loop.open(1, grid))
    part = replies[0].content["arrays"]
    assert isinstance(part, ArrayRecord)
    part["extractor"] = Array(np.full_like(part["extractor"].numpy(), np.nan))
    for reply in replies:
        loop.accept(reply)
    record = loop.close()
    assert len(record.rejected) == 1
    assert record.load == [2]
    assert all(np.isfinite(vector).all() for vector in strategy.model.values())
