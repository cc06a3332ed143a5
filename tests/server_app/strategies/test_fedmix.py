"""FedMix: selection, responsibilities and merge by hand (docs/methods.md, 4)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client_app.training import Objective, train
from common.moe import unpack_into
from common.seeding import stream
from common.settings import Settings
from common.settings.training_settings import TrainingSettings
from server_app.strategies.base import Plan, Reply
from server_app.strategies.fedmix import AvgMoE, FedMix, passing_experts
from tests.server_app.strategies import handmade
from tests.server_app.strategies.handmade import spec_of, view_of

EXPERTS = 4
SPEC = spec_of(EXPERTS)


def strategy_of(kind: type[Any], options: str = "") -> Any:
    config = {"num-experts": EXPERTS, "strategy-options": options}
    return kind(Settings.from_run_config(config), SPEC)


def planned(strategy: Any, budgets: list[int]) -> Plan:
    plan: Plan = strategy.plan(view_of(budgets, EXPERTS))
    return plan


def reply_of(
    client: int,
    n: int,
    experts: list[int],
    responsibility: list[float],
    mass: list[float],
    change: float,
) -> Reply:
    parts = ["extractor", *(f"expert.{e}" for e in experts)]
    return handmade.reply_of(
        client,
        experts,
        [n] * len(experts),
        {part: np.full(SPEC.size(part), change, np.float32) for part in parts},
        num_experts=EXPERTS,
        top_k=0,
        num_examples=n,
        gate_mass=mass,
        responsibility=responsibility,
    )


def test_experts_above_the_threshold_are_fetched_up_to_the_budget() -> None:
    mass = np.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.9, 0.03, 0.02], [0.25] * 4])
    for budgets, expected in (
        ([2, 2, 2], [[0, 1], [1], [0, 1]]),
        ([4, 4, 1], [[0, 1, 2], [1], [0]]),
    ):
        held = passing_experts(mass, np.array(budgets), threshold=0.1)
        assert [np.flatnonzero(row).tolist() for row in held] == expected


def test_one_expert_is_fetched_whatever_its_mass() -> None:
    held = passing_experts(np.array([[0.3, 0.4, 0.3]]), np.array([3]), threshold=0.5)
    assert held.tolist() == [[False, True, False]]


def test_the_threshold_is_in_units_of_the_uniform_mass() -> None:
    strategy = strategy_of(FedMix, "threshold=0.8")
    strategy.mass = np.array([[0.3, 0.21, 0.19, 0.3]])  # 0.8 / 4 = 0.2
    assert planned(strategy, [4]).assignment.tolist() == [[True, True, False, True]]


def test_a_client_that_never_reported_gets_a_draw_by_the_seed() -> None:
    first, again = (planned(strategy_of(FedMix), [2] * 30).assignment for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first.sum(axis=1) == 2).all()
    assert (first.sum(axis=0) > 5).all()


def test_the_order_asks_for_the_gate_and_rewards_a_spread_one() -> None:
    order = planned(strategy_of(FedMix, "spread=0.3"), [2]).order
    assert order == {"report_gate": True, "gate_entropy": -0.3}
    strategy = strategy_of(FedMix)
    assert (strategy.spec.top_k, strategy.spec.mixes) == (0, "probabilities")


def test_experts_are_averaged_by_samples_times_responsibility() -> None:
    strategy = strategy_of(FedMix)
    before = dict(strategy.model)
    planned(strategy, [2, 2])
    replies = [
        reply_of(0, 10, [0, 1], [0.9, 0.1], [0.7, 0.1, 0.1, 0.1], 1.0),
        reply_of(1, 40, [1, 2], [0.25, 0.75], [0.1, 0.2, 0.6, 0.1], 5.0),
    ]
    for reply in replies:
        strategy.merge(reply)
    strategy.finish()
    strategy.learn(replies)
    expected = {
        "expert.0": 1.0,
        "expert.1": (10 * 0.1 * 1 + 40 * 0.25 * 5) / (10 * 0.1 + 40 * 0.25),
        "expert.2": 5.0,
        "expert.3": 0.0,
        "extractor": (10 * 1 + 40 * 5) / 50,
    }
    for part, change in expected.items():
        # Weights are kept on a grid of 2**-16.
        np.testing.assert_allclose(
            strategy.model[part], before[part] + change, rtol=0, atol=1e-4
        )
    np.testing.assert_allclose(strategy.mass[1], [0.1, 0.2, 0.6, 0.1])
    # 10 * .9, 10 * .1 + 40 * .25, 40 * .75: what each expert answered for.
    np.testing.assert_allclose(strategy.responsibility, [9, 11, 30, 0])


def test_the_servers_predictor_is_the_mixture_under_the_prior() -> None:
    strategy = strategy_of(FedMix)
    strategy.responsibility = np.array([1.0, 0, 3, 0])
    x = torch.randn(5, 1, 2, 2)
    model = strategy.full_model()
    features = model.extractor(x)
    members = [model.moe.experts[e](features).softmax(1) for e in ("0", "2")]
    torch.testing.assert_close(
        strategy.global_model()(x), 0.25 * members[0] + 0.75 * members[1]
    )


def two_experts(logits: list[list[float]], gate: list[float]) -> Any:
    """Return a model whose experts and gate say the same for every input."""
    spec = replace(SPEC, num_experts=2, top_k=0, mixes="probabilities")
    model = spec.build([0, 1])
    for parameter in model.parameters():
        parameter.data.zero_()
    for expert, values in zip(model.moe.experts.values(), logits, strict=True):
        expert.get_parameter("out.bias").data = torch.tensor(
            values, dtype=torch.float32
        )
    model.moe.gate.bias.data = torch.tensor(gate, dtype=torch.float32)
    return model


def test_responsibilities_by_hand() -> None:
    # g = (.25, .75); p(y=0) = .8 and .2. Label 0: .2 and .15, so r = 4/7 and 3/7.
    # Label 1: .05 and .6, so r = 1/13 and 12/13.
    model = two_experts(
        [[np.log(0.8), np.log(0.2)], [np.log(0.2), np.log(0.8)]],
        [np.log(0.25), np.log(0.75)],
    )
    x, y = torch.zeros(3, 1, 2, 2), torch.tensor([0, 0, 1])
    result = train(
        model,
        x,
        y,
        settings=TrainingSettings(local_epochs=1, batch_size=3),
        objective=Objective(),
        rng=stream(0, "t"),
    )
    expected = np.array([4 / 7 + 4 / 7 + 1 / 13, 3 / 7 + 3 / 7 + 12 / 13]) / 3
    np.testing.assert_allclose(result.responsibility, expected, rtol=1e-5)
    np.testing.assert_allclose(result.gate_mass, [0.25, 0.75], rtol=1e-5)
    # -log sum_e g_e p_e: .35 for label 0, .65 for label 1.
    loss = -(2 * np.log(0.35) + np.log(0.65)) / 3
    assert result.train_loss == pytest.approx(loss, rel=1e-5)


def test_responsibilities_survive_likelihoods_that_underflow() -> None:
    model = two_experts([[-300.0, 0.0], [-200.0, 0.0]], [0.0, 0.0])
    x, y = torch.zeros(2, 1, 2, 2), torch.tensor([0, 0])
    settings = TrainingSettings(local_epochs=1, batch_size=2)
    result = train(
        model, x, y, settings=settings, objective=Objective(), rng=stream(0, "t")
    )
    np.testing.assert_allclose(result.responsibility, [0, 1], atol=1e-6)
    assert np.isfinite(result.train_loss)


def test_the_local_loss_is_the_likelihood_of_the_mixture() -> None:
    spec = replace(SPEC, top_k=0, mixes="probabilities")
    model = spec.build([1, 3])
    x, y = torch.randn(6, 1, 2, 2), torch.tensor([0, 1, 1, 0, 1, 0])
    features = model.extractor(x)
    gate = model.moe.gate(features)[:, [1, 3]].softmax(1)
    each = [model.moe.experts[e](features).softmax(1) for e in ("1", "3")]
    mixture = gate[:, :1] * each[0] + gate[:, 1:] * each[1]
    expected = -mixture[range(6), y].log().mean()
    routed = model(x)
    loss = Objective().loss(routed, y, model, [], 0.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(routed.logits.softmax(1), mixture)
    parameters = list(model.parameters())
    mine = torch.autograd.grad(loss, parameters, retain_graph=True)
    theirs = torch.autograd.grad(expected, parameters)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_spread_gate_is_cheaper() -> None:
    model, y = two_experts([[0.0, 0.0]] * 2, [0.0, 0.0]), torch.tensor([0])
    peaked = two_experts([[0.0, 0.0]] * 2, [5.0, 0.0])
    objective, x = Objective(gate_entropy=-0.1), torch.zeros(1, 1, 2, 2)
    even = objective.loss(model(x), y, model, [], 0.0).item()
    assert even == pytest.approx(np.log(2) - 0.1 * np.log(2), abs=1e-6)
    assert objective.loss(peaked(x), y, peaked, [], 0.0).item() > even


def test_avg_moe_averages_everything_by_samples_gate_included() -> None:
    strategy = strategy_of(AvgMoE)
    assert "gate" in strategy.model
    before = dict(strategy.model)
    for reply in (
        reply_of(0, 10, [0, 1], [], [], 1.0),
        reply_of(1, 30, [1, 2], [], [], 5.0),
    ):
        gate = np.full(SPEC.size("gate"), reply.deltas["extractor"][0], np.float32)
        strategy.merge(replace(reply, deltas={**reply.deltas, "gate": gate}))
    strategy.finish()
    for part, change in (
        ("expert.0", 1.0),
        ("expert.1", 4.0),
        ("expert.2", 5.0),
        ("expert.3", 0.0),
        ("gate", 4.0),
        ("extractor", 4.0),
    ):
        np.testing.assert_allclose(
            strategy.model[part], before[part] + change, rtol=0, atol=1e-5
        )


def test_avg_moe_predicts_with_its_gate() -> None:
    strategy = strategy_of(AvgMoE)
    x = torch.randn(3, 1, 2, 2)
    model = strategy.full_model()
    gate = np.zeros(SPEC.size("gate"), np.float32)
    gate[-EXPERTS:] = [0, 0, 50, 0]
    strategy.model["gate"] = gate
    unpack_into(model.moe.gate, gate)
    expected = F.softmax(model.moe.experts["2"](model.extractor(x)), 1)
    torch.testing.assert_close(strategy.global_model()(x), expected)


@pytest.mark.parametrize("name", ["fedmix", "avg-moe"])
def test_three_rounds(name: str, exercise: Any) -> None:
    _, records = exercise(name)
    assert sum(records[-1].load) >= 6
