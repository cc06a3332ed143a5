"""Fed-MoE: its loss, its predictor and its stages (docs/methods.md, 3)."""

from math import log
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import SettingsError
from common.moe import EXTRACTOR, ModelSpec, Routed, expert_part, pack
from common.settings import Settings
from server_app.run_config import check_run_config
from server_app.strategies.base import Plan, Reply
from server_app.strategies.fed_moe.correlation import (
    client_weights,
    correlation,
    expert_weights,
    server_weights,
)
from server_app.strategies.fed_moe.fed_moe import FedMoE
from server_app.strategies.fed_moe.gate_training import gate_loss
from server_app.strategies.fed_moe.server_moe import ServerMoE, compact_model, join
from tests.common.moe.support import exported_answer
from tests.server_app.strategies.handmade import view_of

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=8,
    expert_hidden=4,
    top_k=1,
)
RESERVED = 40


def strategy_of(options: str = "experts=2, iterations=1", **changes: Any) -> FedMoE:
    config = {
        "strategy": "fed-moe",
        "strategy-options": options,
        "reserved-samples": RESERVED,
        **changes,
    }
    return FedMoE(Settings.from_run_config(config), SPEC)


def planned(strategy: FedMoE, rows: list[int]) -> Plan:
    some = {"clients": np.array(rows, dtype=np.int64), "num_clients": 10}
    return strategy.plan(view_of([1] * len(rows), 1, **some))


def merge(strategy: FedMoE, row: int, shift: float) -> None:
    """Let a client answer that every value moved by ``shift``."""
    parts = (EXTRACTOR, expert_part(0))
    deltas = {p: np.full_like(strategy.model[p], shift) for p in parts}
    strategy.merge(Reply(client=row, order=None, report=None, deltas=deltas))  # type: ignore[arg-type]


class Constant(nn.Module):
    """A model that answers the same for every sample, and counts them."""

    def __init__(self, *values: float, logits: bool = False) -> None:
        super().__init__()
        self.answer = torch.tensor(values) if logits else torch.tensor(values).log()
        self.seen = 0

    def forward(self, x: torch.Tensor) -> Any:
        self.seen += len(x)
        logits = self.answer.expand(len(x), -1)
        return Routed(logits=logits, layers=())


class Gate(Constant):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer.expand(len(x), -1)


def test_gate_loss_by_hand() -> None:
    # Q = (3/4, 1/4); routed say (.8, .2) and (.4, .6), main (.5, .5); label 0.
    # Eq. 1: .5 * .5 + .5 * (.75 * .8 + .25 * .4) = .6
    loss = gate_loss(
        torch.tensor([[log(3.0), 0.0]]),
        torch.tensor(0.5),
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([[[0.8, 0.2], [0.4, 0.6]]]),
        torch.tensor([0]),
        beta=0.1,
    )
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25))
    assert loss.item() == pytest.approx(-log(0.6) + 0.1 * entropy)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_gate_that_is_quite_sure_still_learns(beta: float) -> None:
    # Sure of the first expert, the first time rightly, the second time wrongly.
    logits = torch.tensor([[300.0, 0.0], [300.0, 0.0]], requires_grad=True)
    alpha = torch.tensor(0.5, requires_grad=True)
    loss = gate_loss(
        logits,
        alpha,
        torch.tensor([[0.5, 0.5], [0.5, 0.5]]),
        torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]),
        torch.tensor([0, 0]),
        beta=beta,
    )
    loss.backward()
    # Eq. 1 gives .5 * .5 + .5 * 1 = 3/4 and .5 * .5 + .5 * 0 = 1/4.
    assert loss.item() == pytest.approx(-(log(3 / 4) + log(1 / 4)) / 2)
    torch.testing.assert_close(logits.grad, torch.zeros(2, 2))
    # d/d alpha: (1 - .5) / .75 and (0 - .5) / .25, averaged, with the sign turned.
    assert alpha.grad is not None
    assert alpha.grad.item() == pytest.approx(-(0.5 / 0.75 - 0.5 / 0.25) / 2)


def test_the_predictor_runs_the_top_experts_only() -> None:
    main, routed = Constant(0.5, 0.5), [Constant(0.9, 0.1), Constant(0.2, 0.8)]
    gate = Gate(1.0, 3.0)  # softmaxes to (1/4, 3/4) of its logarithms
    x = torch.zeros(3, 1)
    # L = 1: the softmax of one value is 1: .6 * (.5, .5) + .4 * (.2, .8)
    answer = ServerMoE(main, routed, gate, 0.4, 1)(x)  # type: ignore[arg-type]
    torch.testing.assert_close(answer, torch.tensor([0.38, 0.62]).expand(3, 2))
    assert [expert.seen for expert in routed] == [0, 3]
    # L = 2: softmax of (3/4, 1/4) once more, as Eq. 10 has it.
    weight = 1 / (1 + np.exp(-0.5))
    answer = ServerMoE(main, routed, gate, 0.4, 2)(x)  # type: ignore[arg-type]
    first = 0.6 * 0.5 + 0.4 * (weight * 0.2 + (1 - weight) * 0.9)
    assert answer[0, 0].item() == pytest.approx(first)


@pytest.mark.parametrize("top_l", [1, 2])
def test_an_exported_graph_answers_the_same(top_l: int) -> None:
    routed = [Constant(0.9, 0.1), Constant(0.2, 0.8)]
    moe = ServerMoE(Constant(0.5, 0.5), routed, Gate(1.0, 3.0), 0.4, top_l)  # type: ignore[arg-type]
    x = torch.zeros(3, 1)
    exported = exported_answer(moe, x)
    assert [expert.seen for expert in routed] == [3, 3]  # nobody is skipped
    torch.testing.assert_close(exported, moe.answer(x))


def test_a_client_gets_its_own_model_and_a_new_one_the_main_expert() -> None:
    strategy = strategy_of()
    merge(strategy, 3, 0.1)
    merge(strategy, 1, -0.1)
    strategy.finish()
    plan = planned(strategy, [1, 2, 3])
    assert plan.assignment.tolist() == [[True]] * 3
    assert sorted(plan.content) == [1, 3]
    for row in (1, 3):
        sent = plan.content[row]
        assert list(sent) == [EXTRACTOR, "expert.0"]
        np.testing.assert_array_equal(join(sent.values()), strategy.clients[row])
    assert not np.array_equal(strategy.clients[1], strategy.clients[3])


def test_stages_b_and_c_follow_the_equations() -> None:
    strategy = strategy_of("experts=2, iterations=1, moving-rate=0.25")
    before = join(strategy.model[part] for part in (EXTRACTOR, "expert.0"))
    gates = strategy._gate.gating()  # Q of the gate that Stage B starts with
    for row, shift in ((0, 0.2), (1, -0.4)):
        merge(strategy, row, shift)
    models = [before + np.float32(0.2), before + np.float32(-0.4)]
    confidence = strategy._gate.confidence(models)
    assert confidence.shape == (RESERVED, 2)
    strategy.finish()
    # Eq. 6: a quarter of the way to the mean of +.2 and -.4.
    main = join(strategy.model[part] for part in (EXTRACTOR, "expert.0"))
    np.testing.assert_allclose(main, before - 0.025, atol=1e-6)
    weights = client_weights(correlation(gates, confidence))
    experts = [main]
    for k, (up, down) in enumerate(weights):
        experts.append(strategy.model[f"routed.{k}"])
        shift = 0.25 * (0.2 * up - 0.4 * down)
        np.testing.assert_allclose(experts[-1], before + shift, atol=1e-6)
    # Eq. 11-13 with the refreshed gate.
    strategy._gate.load(strategy.model)
    refreshed = expert_weights(correlation(strategy._gate.gating(), confidence))
    columns = server_weights(refreshed, strategy._gate.alpha)
    for j, model in enumerate(models):
        target = sum(w * e for w, e in zip(columns[:, j], experts, strict=True))
        expected = 0.25 * model + 0.75 * target
        np.testing.assert_allclose(strategy.clients[j], expected, atol=1e-6)


def test_without_synchronisation_a_client_goes_on_from_its_own_model() -> None:
    strategy = strategy_of("experts=2, iterations=1, synchronise=false")
    before = strategy._main
    merge(strategy, 3, 0.1)
    strategy.finish()
    np.testing.assert_array_equal(strategy.clients[3], before + np.float32(0.1))


def test_without_a_main_expert_alpha_stays_one() -> None:
    strategy = strategy_of("experts=2, iterations=2, main-expert=false")
    gate = pack(strategy._gate.gate)
    for row, shift in ((0, 0.2), (1, -0.4)):
        merge(strategy, row, shift)
    strategy.finish()
    assert strategy._gate.alpha == 1
    assert not np.array_equal(pack(strategy._gate.gate), gate)
    # The main expert has no part in an answer: that of one routed expert is all of it.
    x = torch.rand(5, 1, 8, 8)
    answer = strategy.global_model()(x)
    experts = [compact_model(SPEC.dense(), e)(x) for e in strategy._experts[1:]]
    alone = torch.stack([e.logits.softmax(1) for e in experts])
    nearest = (alone - answer).abs().amax(2).amin(0)
    torch.testing.assert_close(nearest, torch.zeros(5))
    assert all(np.isfinite(vector).all() for vector in strategy.clients.values())


def test_replies_may_come_in_any_order() -> None:
    one, other = strategy_of(), strategy_of()
    for strategy, rows in ((one, (0, 1, 2)), (other, (2, 0, 1))):
        for row in rows:
            merge(strategy, row, 0.1 * row)
        strategy.finish()
    for part, vector in one.model.items():
        np.testing.assert_array_equal(vector, other.model[part])


def test_a_round_without_replies_changes_nothing() -> None:
    strategy = strategy_of()
    before = dict(strategy.model)
    merge(strategy, 0, 0.1)
    strategy.discard()
    strategy.finish()
    assert strategy.clients == {}
    for part, vector in before.items():
        np.testing.assert_array_equal(vector, strategy.model[part])


def test_three_rounds(exercise: Any) -> None:
    strategy, records = exercise(
        "fed-moe",
        **{"reserved-samples": RESERVED, "clients-per-round": 4},
        **{"strategy-options": "experts=2, iterations=2"},
    )
    assert {record.cv_cumulative for record in records} == {0.0}
    assert 4 <= len(strategy.clients) <= 6
    assert 0 < strategy._gate.alpha < 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reserved-samples": 0}, "reserved-samples = 0.*reserved-samples=100"),
        ({"merging": "median"}, "merging = 'median'"),
        ({"strategy-options": "experts=2, top-l=3"}, "top-l is at most experts = 2"),
    ],
)
def test_what_cannot_be_run_is_refused(changes: dict[str, Any], words: str) -> None:
    config = {"strategy": "fed-moe", "reserved-samples": RESERVED, **changes}
    with pytest.raises(SettingsError, match=words):
        check_run_config(config)
