"""HFedMoE: importance, budget and active experts by hand (docs/methods.md, 4)."""

from typing import Any

import numpy as np
import pytest
import torch

from client_app.training import Objective, train
from common.moe import GATE, unflatten
from common.seeding import stream
from common.settings import Settings
from common.settings.training_settings import TrainingSettings
from server_app.strategies.base import Plan, Reply
from server_app.strategies.hfedmoe import HFedMoE, expert_importance, gate_row
from tests.server_app.strategies import handmade
from tests.server_app.strategies.handmade import spec_of, view_of

EXPERTS = 3
SPEC = spec_of(EXPERTS)


def strategy_of(options: str = "") -> HFedMoE:
    config = {"num-experts": EXPERTS, "strategy-options": options}
    return HFedMoE(Settings.from_run_config(config), SPEC)


def planned(strategy: HFedMoE, budgets: list[int]) -> Plan:
    return strategy.plan(view_of(budgets, EXPERTS))


def reply_of(
    client: int,
    experts: list[int],
    samples: list[int],
    mass: list[float],
    change: float,
) -> Reply:
    parts = ["extractor", *(f"expert.{e}" for e in experts), GATE]
    return handmade.reply_of(
        client,
        experts,
        samples,
        {part: np.full(SPEC.size(part), change, np.float32) for part in parts},
        num_experts=EXPERTS,
        gate="shared",
        gate_mass=mass,
        input_information=[0.0] * EXPERTS,
        label_information=[0.0] * EXPERTS,
    )


def test_importance_by_hand() -> None:
    importance = expert_importance(
        [0.5, 0.3, 0.2],
        [0.1, 0.0, 0.2],
        [0.2, 0.1, 0.4],
        information=2,
        compression=0.5,
    )
    # .5 + 2 (.1 - .5 .2); .3 + 2 (0 - .5 .1); .2 + 2 (.2 - .5 .4)
    np.testing.assert_allclose(importance, [0.5, 0.2, 0.2])


def test_information_by_hand() -> None:
    # The gate puts label 0 on expert 0 and label 1 on expert 1, three to one.
    model = SPEC.build([0, 1])
    for parameter in model.parameters():
        parameter.data.zero_()
    model.extractor.get_parameter("hidden.weight").data[0, 0] = 1.0
    gate = np.log(0.75 / 0.25)
    model.moe.gate.bias.data = torch.tensor([gate, 0.0, -1e9], dtype=torch.float32)
    model.moe.gate.weight.data[0, 0] = -gate
    model.moe.gate.weight.data[1, 0] = gate
    # Input 0 gives logits (g, 0), probabilities (.75, .25); input 1 (0, g).
    x = torch.zeros(4, 1, 2, 2)
    x[2:, 0, 0, 0] = 1.0
    y = torch.tensor([0, 0, 1, 1])
    result = train(
        model,
        x,
        y,
        settings=TrainingSettings(local_epochs=1, batch_size=4),
        objective=Objective(),
        rng=stream(0, "t"),
    )
    # H(Z) = log 2 and H(Z|X) = H(Z|Y) = H(.75, .25), half of each per expert.
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    share = (np.log(2) - entropy) / 2
    for information in (result.input_information, result.label_information):
        np.testing.assert_allclose(information, [share, share, 0], atol=1e-6)
    np.testing.assert_allclose(result.gate_mass, [0.5, 0.5, 0], atol=1e-6)


def test_labels_never_tell_more_than_inputs() -> None:
    # Data processing: Z depends on Y through X alone.
    model, rng = SPEC.build([0, 2], seed=3), np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(40, 1, 2, 2)), dtype=torch.float32) * 5
    result = train(
        model,
        x,
        torch.tensor(rng.integers(0, 2, size=40)),
        settings=TrainingSettings(local_epochs=2),
        objective=Objective(),
        rng=stream(0, "t"),
    )
    assert (result.label_information >= -1e-9).all()
    assert (result.input_information >= result.label_information - 1e-9).all()
    bound = torch.special.entr(torch.from_numpy(result.gate_mass)).numpy()
    assert (result.input_information <= bound + 1e-9).all()


def test_the_budget_limits_the_experts_to_the_most_important() -> None:
    strategy = strategy_of()
    strategy.importance = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    plan = planned(strategy, [1, 2])
    assert plan.assignment.tolist() == [[False, True, False], [True, False, True]]
    assert plan.order == {"report_gate": True, "report_information": True}


def test_a_client_that_never_reported_gets_a_draw_by_the_seed() -> None:
    first, again = (planned(strategy_of(), [1] * 30).assignment for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first.sum(axis=0) > 3).all()


def test_inactive_experts_are_left_out_and_the_others_weighed_by_importance() -> None:
    strategy = strategy_of("tau=0.2")
    before = dict(strategy.model)
    # Client 0 routes 1 of 10 samples to expert 1: below tau, so it does not count.
    strategy.merge(reply_of(0, [0, 1], [9, 1], [0.5, 0.3, 0.2], 1.0))
    strategy.merge(reply_of(1, [0, 1], [20, 20], [0.25, 0.5, 0.25], 5.0))
    strategy.finish()
    mean = (10 * 0.5 * 1 + 40 * 0.25 * 5) / (10 * 0.5 + 40 * 0.25)
    for part, change in (
        ("expert.0", mean),
        ("expert.1", 5.0),
        ("expert.2", 0.0),
        ("extractor", (10 * 1 + 40 * 5) / 50),
    ):
        np.testing.assert_allclose(
            strategy.model[part], before[part] + change, rtol=0, atol=1e-5
        )
    moved = unflatten(strategy.model[GATE] - before[GATE], SPEC.layout(GATE))
    # Rows of the gate move with their experts; nobody held expert 2.
    np.testing.assert_allclose(moved["bias"], [mean, 5.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(moved["weight"][0], mean, atol=1e-5)
    np.testing.assert_allclose(moved["weight"][2], 0.0)


def test_what_is_learnt_is_the_importance_of_every_expert() -> None:
    strategy = strategy_of()
    planned(strategy, [2, 2])
    strategy.learn([reply_of(1, [0, 1], [5, 5], [0.2, 0.3, 0.5], 1.0)])
    np.testing.assert_allclose(strategy.importance[1], [0.2, 0.3, 0.5])
    np.testing.assert_allclose(strategy.importance[0], 0.5, atol=1e-5)


def test_a_row_of_the_gate_is_its_weights_and_its_bias() -> None:
    layout = (("weight", (3, 2)), ("bias", (3,)))
    assert gate_row(layout, 1).tolist() == [2, 3, 7]


@pytest.mark.parametrize("merging", ["mean", "trimmed-mean"])
def test_three_rounds(merging: str, exercise: Any) -> None:
    _, records = exercise("hfedmoe", merging=merging)
    assert sum(records[-1].load) == 12
