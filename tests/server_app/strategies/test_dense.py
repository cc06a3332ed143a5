"""FedAvg and FedProx against hand-computed numbers (docs/methods.md, 4)."""

from typing import Any

import numpy as np
import pytest
import torch

from client_app.app import app as client_app
from client_app.training import Objective
from common import wire
from common.errors import SettingsError
from common.inline_grid import InlineGrid
from common.moe import Vector
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.rounds.loop import RoundLoop
from server_app.run_config import check_run_config
from server_app.strategies import find_strategy
from server_app.strategies.base import ExpertStrategy, Reply
from tests.server_app.strategies import handmade
from tests.server_app.strategies.handmade import spec_of

SPEC = spec_of(4)


def strategy_of(name: str, options: str = "", **changes: Any) -> ExpertStrategy:
    config = {"num-experts": 4, "strategy-options": options, **changes}
    return find_strategy(name)(Settings.from_run_config(config), SPEC)


def reply_of(client: int, n: int, deltas: dict[str, Vector]) -> Reply:
    return handmade.reply_of(client, [0], [n], deltas, num_experts=1, gate="none")


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_the_model_is_the_dense_one(name: str) -> None:
    strategy = strategy_of(name)
    assert set(strategy.model) == {"extractor", "expert.0"}
    assert strategy.parts_for([0]) == ["extractor", "expert.0"]


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_the_mean_is_weighted_by_samples(name: str) -> None:
    strategy = strategy_of(name)
    before = dict(strategy.model)
    for client, n, change in ((0, 10, 1.0), (1, 30, 3.0)):
        deltas = {k: np.full(v.size, change, np.float32) for k, v in before.items()}
        strategy.merge(reply_of(client, n, deltas))
    strategy.finish()
    for part, vector in strategy.model.items():
        # (10 * 1 + 30 * 3) / 40 = 2.5
        np.testing.assert_allclose(vector, before[part] + 2.5, rtol=1e-6)


def test_a_round_equals_the_mean_of_what_the_clients_trained() -> None:
    config: dict[str, Any] = {
        "strategy": "fedavg",
        "train-samples": 300,
        "local-epochs": 1,
    }
    settings = Settings.from_run_config(config)
    strategy = find_strategy("fedavg")(
        settings, model_spec(settings, dataset_of(settings))
    )
    grid = InlineGrid(client_app, 3, config)
    before = dict(strategy.model)
    loop = RoundLoop(strategy)
    messages = loop.open(1, grid)
    replies: list[Reply] = []
    merge = strategy.merge
    strategy.merge = lambda reply: (replies.append(reply), merge(reply))[1]  # type: ignore[method-assign, func-returns-value]
    for message in grid.send_and_receive(messages):
        loop.accept(message)
    loop.close()
    counts = [reply.report.num_examples for reply in replies]
    assert len(set(counts)) > 1
    for part in before:
        mean = np.average(
            [reply.deltas[part].astype(np.float64) for reply in replies],
            axis=0,
            weights=counts,
        )
        np.testing.assert_allclose(strategy.model[part] - before[part], mean, atol=1e-6)


def test_the_proximal_gradient_is_mu_times_the_distance() -> None:
    model = SPEC.dense().build([0])
    anchor = [p.detach().clone() + 0.25 for p in model.parameters()]
    x, y = torch.randn(5, 1, 2, 2), torch.tensor([0, 1, 0, 1, 1])

    def gradients(mu: float) -> list[torch.Tensor]:
        loss = Objective(proximal=mu).loss(model(x), y, model, anchor, 0.0)
        return list(
            torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        )

    # d/dw mu/2 ||w - w_t||^2 = mu (w - w_t) = 0.8 * -0.25 on every weight.
    for plain, pulled in zip(gradients(0.0), gradients(0.8), strict=True):
        torch.testing.assert_close(pulled - plain, torch.full_like(plain, -0.2))


def test_mu_travels_with_the_order_and_has_a_default() -> None:
    for options, mu in (("", 0.01), ("mu=0.5", 0.5)):
        strategy = strategy_of("fedprox", options)
        grid = InlineGrid(client_app, 2, {"num-experts": 4})
        first, _ = RoundLoop(strategy).open(1, grid)
        order = wire.decode_order(first.content)
        assert order.proximal == mu
        assert order.gate == "none"


def test_wrong_options_end_in_one_line() -> None:
    for options, text in (("mu=-1", "mu = -1"), ("my=1", "did you mean 'mu'?")):
        with pytest.raises(SettingsError, match=text.replace("?", r"\?")):
            check_run_config({"strategy": "fedprox", "strategy-options": options})


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_three_rounds(name: str, exercise: Any) -> None:
    _, records = exercise(name)
    assert records[-1].load == [6]
