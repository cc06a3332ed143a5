"""Every strategy on a device that is no processor: its tensors stay together.

The device is a fake that refuses what a GPU refuses (:mod:`tests.fake_device`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from server_app.fleet.agreement import Agreement
from server_app.rounds.evaluation import server_evaluation
from server_app.rounds.loop import RoundLoop
from server_app.strategies import STRATEGIES
from server_app.strategies.base import ExpertStrategy
from tests.common.networks.tiny_network import NAME, weights
from tests.fake_device import DEVICE, OnDevice, fake_device
from tests.server_app.rounds.test_fleet_evaluation import run as by_devices
from tests.server_app.strategies.conftest import step, strategy_of
from tests.server_app.strategies.test_text import texts

ROUNDS = 2
CONFIG: dict[str, Any] = {
    "num-experts": 3,
    "num-rounds": ROUNDS,
    "train-samples": 60,
    "test-samples": 40,
    "local-epochs": 1,
    "top-k": 2,
    "optimizer": "adamw",
    "lr": 0.001,
    "clip-grad": 1.0,
    "label-smoothing": 0.1,
    "augment": "RandomCrop(padding=1)",
    "label-prior": 1.0,
    "loss-calibration": 0.25,
    "client-keep": 0.5,
    "client-metrics": "tests.server_app.strategies.test_on_a_device:largest",
}
NEEDS: dict[str, dict[str, Any]] = {
    "cent-moe": {"reserved-samples": 60},
    "fed-moe": {"reserved-samples": 60, "strategy-options": "experts=2, iterations=2"},
    "fedbn": {"backbone": "cnn", "norm": "batch"},
    "flex-moe-plus": {"reserved-samples": 60, "strategy-options": "gate-epochs=1"},
    "ifca": {"strategy-options": "clusters=2, warmup=1"},
    "kin": {"partition": "rotation:2+iid"},
}


def largest(model: Any, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    return {"largest": float(model(x).logits.max())} if len(y) else {}


def run(config: dict[str, Any]) -> tuple[ExpertStrategy, dict[str, Any]]:
    loop = RoundLoop(strategy_of(config))
    grid = InlineGrid(client_app, 4, config)
    strategy = loop.strategy
    assert isinstance(strategy, ExpertStrategy)

    def learned(recall: Callable[[], object]) -> None:
        recall()

    evaluation = server_evaluation(strategy, Agreement(strategy.settings), learned)
    assert evaluation is not None
    measured: dict[str, Any] = {}
    for server_round in range(1, ROUNDS + 1):
        record = step(loop, grid, server_round)
        assert record.rejected == {}
        measured = {**(evaluation(server_round, strategy.arrays()) or {})}
    state = loop.state()  # is to be written
    loop.load_state(state)
    return strategy, measured


@pytest.mark.parametrize("name", [*sorted(STRATEGIES.built_in), "flwr:FedAvg"])
def test_all_tensors_of_a_round_are_together(name: str) -> None:
    config = {**CONFIG, "strategy": name, **NEEDS.get(name, {})}
    with fake_device():
        found, measured = run(config)
        predictor = found.global_model()
    # What predicts, is served, saved or exported is anybody's, on the processor.
    if predictor is not None:
        places = {each.device.type for each in predictor.state_dict().values()}
        assert places == {"cpu"}
        rows = torch.zeros(2, *found.spec.input_shape)
        assert predictor.eval()(rows).shape == (2, 10)
        assert 0 <= measured["server_global"] <= 1
    assert {type(vector) for vector in found.model.values()} <= {np.ndarray}


@pytest.mark.parametrize("name", ["flex-moe", "fed-moe"])
def test_the_numbers_are_those_of_the_processor(name: str) -> None:
    config = {**CONFIG, "strategy": name, **NEEDS.get(name, {})}
    expected, accuracy = run(config)
    with fake_device():
        found, there = run(config)
    assert there["server_global"] == accuracy["server_global"]
    for part, vector in found.model.items():
        # Adam of torch's sums in another order where there is no processor.
        np.testing.assert_allclose(
            vector, expected.model[part], rtol=1e-4, atol=1e-6, err_msg=part
        )


@pytest.mark.parametrize("name", ["fed-moe", "fedjets", "flex-moe", "kin"])
def test_so_they_are_on_text(name: str, tmp_path: Path) -> None:
    (tmp_path / "opinions.jsonl").write_text("\n".join(texts(80)) + "\n")
    of_text = {
        "dataset": "opinions",
        "data-dir": str(tmp_path),
        "partition": "natural",
        "text-length": 8,
        "vocabulary": 64,
        "backbone": "text-transformer",
        "encoder-width": 8,
        "encoder-heads": 2,
        "augment": "",
    }
    needs = {**NEEDS.get(name, {}), "reserved-samples": 10, **of_text}
    with fake_device():
        run({**CONFIG, "strategy": name, **needs, "train-samples": 0})


@pytest.mark.parametrize("name", ["fedjets", "flex-moe", "flex-moe-plus", "kin"])
def test_devices_measure_the_servers_predictor(name: str) -> None:
    config = {**CONFIG, "strategy": name, **NEEDS.get(name, {})}
    with fake_device():
        _, records = by_devices(InlineGrid(client_app, 4, config))
    assert [len(record.fleet_clients or []) for record in records] == [4] * ROUNDS


@pytest.mark.parametrize("freeze", ["all", "1"])
def test_a_frozen_network_goes_along(freeze: str, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(weights().state_dict(), file)
    network = {"backbone": NAME, "pretrained": str(file), "freeze": freeze}
    with fake_device():
        _, records = by_devices(InlineGrid(client_app, 4, {**CONFIG, **network}))
    assert all(not record.rejected for record in records)
    assert [len(record.fleet_clients or []) for record in records] == [4] * ROUNDS


def test_the_fake_device_is_one() -> None:
    with fake_device():
        x = torch.arange(6.0, device=DEVICE).view(2, 3)
        assert isinstance(x, OnDevice) and x.device == DEVICE
        assert (x + torch.tensor(1.0)).sum().item() == 21
        assert torch.equal(x[torch.tensor([1])].cpu(), torch.tensor([[3.0, 4.0, 5.0]]))
        with pytest.raises(RuntimeError, match="on the same device"):
            x.add(torch.ones(3))
        with pytest.raises(RuntimeError, match="on the same device"):
            torch.ones(3).index_select(0, x[0].long())
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            x.numpy()
        layer = torch.nn.Linear(3, 2).to(DEVICE)
        [slope] = torch.autograd.grad(layer(x).sum(), [layer.weight])
        torch.testing.assert_close(slope.cpu()[0], x.cpu().sum(0))
