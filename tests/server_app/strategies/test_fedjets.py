"""FedJETs: anchors, the gate's top-K, the common expert (docs/methods.md, 4)."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client_app.training import Objective
from common.errors import SettingsError
from common.moe import COMMON, EXTRACTOR, GATE, ModelSpec, expert_part
from common.settings import Settings
from server_app.run_config import check_run_config
from server_app.strategies.base import Plan, Reply
from server_app.strategies.fedjets import AnchorMoE, FedJETs, bound
from tests.server_app.strategies import handmade
from tests.server_app.strategies.handmade import view_of

EXPERTS = 3
SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=EXPERTS,
    expert_hidden=4,
    top_k=1,
)


def strategy_of(kind: type[FedJETs] = FedJETs, **changes: Any) -> FedJETs:
    config = {"num-experts": EXPERTS, "strategy-options": "warmup-rounds=1", **changes}
    return kind(Settings.from_run_config(config), SPEC)


def planned(strategy: FedJETs, budgets: list[int], server_round: int = 2) -> Plan:
    return strategy.plan(view_of(budgets, EXPERTS, server_round=server_round))


def reply_of(client: int, expert: int, n: int, deltas: dict[str, Any]) -> Reply:
    return handmade.reply_of(client, [expert], [n], deltas, num_experts=EXPERTS)


def test_every_expert_gets_one_client_and_keeps_it() -> None:
    nobody = np.full(EXPERTS, -1)
    first = bound(nobody, np.array([4, 7]), seed=0)
    assert sorted(first.tolist()) == [-1, 4, 7]  # too few clients for three experts
    then = bound(first, np.array([4, 7, 9, 11]), seed=0)
    assert then[first >= 0].tolist() == first[first >= 0].tolist()
    assert then[first < 0].item() in (9, 11)
    np.testing.assert_array_equal(bound(then, np.arange(20), seed=0), then)
    np.testing.assert_array_equal(nobody, [-1, -1, -1])


def test_anchors_depend_on_the_seed_alone() -> None:
    drawn = {
        tuple(bound(np.full(EXPERTS, -1), np.arange(50), seed)) for seed in range(8)
    }
    assert len(drawn) > 1
    again = bound(np.full(EXPERTS, -1), np.arange(50), 3)
    assert tuple(again) == tuple(bound(np.full(EXPERTS, -1), np.arange(50), 3))


def test_anchors_hold_their_expert_and_the_others_the_top_of_the_gate() -> None:
    strategy = strategy_of()
    strategy.anchors = np.array([2, 0, 4])
    strategy.gate_mass = np.array(
        [
            [0.9, 0.0, 0.1],  # an anchor: what the gate says does not matter
            [0.2, 0.5, 0.3],
            [0.0, 0.0, 1.0],
            [0.6, 0.1, 0.3],
            [1.0, 0.0, 0.0],
        ]
    )
    plan = planned(strategy, budgets=[2, 3, 3, 1, 2])
    assert plan.assignment.astype(int).tolist() == [
        [0, 1, 0],
        [0, 1, 1],  # K = 2 although three would fit
        [1, 0, 0],
        [1, 0, 0],  # the device holds one
        [0, 0, 1],
    ]
    assert {row: dict(o) for row, o in plan.client_order.items()} == {
        row: {"gate_supervision": 1.0} for row in (0, 2, 4)
    }
    assert plan.order == {"common_gate": True, "report_gate": True}
    assert plan.notes == ()


def test_anchor_moe_gives_an_ordinary_client_one_expert() -> None:
    strategy = strategy_of(AnchorMoE)
    strategy.anchors = np.array([0, 1, 2])
    strategy.gate_mass = np.array([[np.nan] * 3] * 3 + [[0.2, 0.5, 0.3]])
    assert planned(strategy, [2] * 4).assignment[3].tolist() == [False, True, False]


def test_a_client_that_never_reported_gets_a_seeded_choice() -> None:
    first, second = (planned(strategy_of(), [2] * 8) for _ in range(2))
    np.testing.assert_array_equal(first.assignment, second.assignment)
    # Three anchors with their own expert, five others with two by chance.
    assert sorted(first.assignment.sum(1)) == [1] * 3 + [2] * 5


def test_too_few_clients_are_noted() -> None:
    plan = planned(strategy_of(), [2, 2])
    assert plan.assignment.sum() == 2
    assert "without an anchor" in plan.notes[0]


def test_anchors_take_part_in_every_sample() -> None:
    strategy = strategy_of()
    strategy.anchors = np.array([1, 8, 5])
    online = np.array([0, 1, 2, 3, 5, 6, 7, 9])  # anchor 8 is away
    for seed in range(5):
        rows = strategy.sample(online, 4, np.random.default_rng(seed))
        assert len(rows) == 4
        assert {1, 5} <= set(rows.tolist()) <= set(online.tolist())
        assert rows.tolist() == sorted(rows.tolist())


def test_the_warm_up_trains_one_model_that_becomes_the_common_expert() -> None:
    strategy = strategy_of()
    plan = planned(strategy, [2] * 4, server_round=1)
    assert plan.order == {"gate": "none"}
    assert plan.assignment.sum(1).tolist() == [1] * 4
    assert list(plan.content[1]) == [EXTRACTOR, "expert.1"]
    before = dict(strategy.model)
    # n_c = 1 and 3: the means are (1 * 4 + 3 * 0) / 4 and (1 * 8 + 3 * 4) / 4.
    for client, n, psi, theta in ((0, 1, 4.0, 8.0), (1, 3, 0.0, 4.0)):
        deltas = {
            EXTRACTOR: np.full_like(before[EXTRACTOR], psi),
            expert_part(client): np.full_like(before["expert.0"], theta),
        }
        strategy.merge(reply_of(client, client, n, deltas))
    strategy.finish()
    np.testing.assert_allclose(strategy.model[EXTRACTOR], before[EXTRACTOR] + 1)
    np.testing.assert_array_equal(strategy.model[COMMON], strategy.model[EXTRACTOR])
    for expert in range(EXPERTS):
        np.testing.assert_allclose(
            strategy.model[expert_part(expert)], before["expert.0"] + 5, rtol=1e-6
        )
    np.testing.assert_array_equal(strategy.model[GATE], before[GATE])


def test_after_the_warm_up_the_common_expert_is_frozen() -> None:
    strategy = strategy_of()
    planned(strategy, [2] * 4, server_round=2)
    before = dict(strategy.model)
    deltas = {
        EXTRACTOR: np.ones_like(before[EXTRACTOR]),
        "expert.1": np.ones_like(before["expert.1"]),
    }
    strategy.merge(reply_of(0, 1, 5, deltas))
    strategy.finish()
    np.testing.assert_array_equal(strategy.model[COMMON], before[COMMON])
    np.testing.assert_array_equal(strategy.model["expert.0"], before["expert.0"])
    np.testing.assert_allclose(strategy.model["expert.1"], before["expert.1"] + 1)


def test_an_anchor_teaches_the_gate_its_expert() -> None:
    torch.manual_seed(0)
    model = SPEC.build([2])
    x, y = torch.randn(5, 1, 8, 8), torch.randint(10, (5,))
    routed = model(x)
    named = F.cross_entropy(routed.layers[0].gate_logits, torch.full((5,), 2))
    plain = Objective().loss(routed, y, model, [], 0.0)
    taught = Objective(gate_supervision=0.5).loss(routed, y, model, [], 0.0)
    torch.testing.assert_close(taught, plain + 0.5 * named)


@pytest.mark.parametrize("name", ["fedjets", "anchor-moe"])
def test_three_rounds(exercise: Any, name: str) -> None:
    strategy, records = exercise(name)
    assert len(set(strategy.anchors.tolist())) == EXPERTS
    assert strategy.warmup == 1
    assert strategy.gate_mass.shape == (6, EXPERTS)
    np.testing.assert_allclose(strategy.gate_mass.sum(1), 1)
    for record in records[1:]:
        alone = [c.experts for c in record.clients if len(c.experts) == 1]
        assert {e for [e] in alone} == {0, 1, 2}
        assert all(load >= 1 for load in record.load)


def test_anchors_must_leave_room_for_ordinary_clients() -> None:
    config = {"strategy": "fedjets", "num-experts": 3, "clients-per-round": 3}
    with pytest.raises(SettingsError, match=r"clients-per-round = 3.*e\.g\. 6"):
        check_run_config(config)
    check_run_config({**config, "clients-per-round": 4})
