"""KIN worked out by hand, and the dense model that it becomes (docs/methods.md, 7)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from client_app.app import app as client_app
from common.errors import SettingsError
from common.inline_grid import InlineGrid
from common.metrics import coefficient_of_variation
from common.moe import ModelSpec, Vector
from common.moe.ensemble import GroupMixture
from common.settings import Settings
from server_app.rounds.loop import RoundLoop
from server_app.strategies.base import ExpertStrategy, Plan, Reply
from server_app.strategies.kin.kin import Kin, banks_of
from tests.server_app.strategies.conftest import Exercise, step, strategy_of
from tests.server_app.strategies.handmade import profile, reply_of, view_of

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 2, 2),
    num_classes=1,
    num_experts=4,
    expert_hidden=2,
    top_k=1,
)


def kin(options: str = "projections=1", **changes: Any) -> Kin:
    config = {"strategy": "kin", "num-experts": 4, "strategy-options": options}
    return Kin(Settings.from_run_config({**config, **changes}), SPEC)


def fleet(*places: float) -> tuple[Any, ...]:
    """Clients whose one class lies at these places of a line."""
    return tuple(
        profile(
            client=f"c{row}",
            statistic_means=[place],
            statistic_counts=[100],
            statistic_covariance=[1.0],
        )
        for row, place in enumerate(places)
    )


def plan(strategy: Kin, clients: Sequence[int], said: tuple[Any, ...]) -> Plan:
    view = view_of([2] * len(clients), 4, clients=np.array(clients), fleet=said)
    return strategy.plan(view)


def answer(strategy: Kin, made: Plan, position: int, client: int, **said: Any) -> Reply:
    """A reply that changes every value of what it was sent by ``change``."""
    experts = np.flatnonzero(made.assignment[position]).tolist()
    change, n = np.float32(said["change"]), said["n"]
    parts = made.content[client]
    deltas: dict[str, Vector] = {k: np.full_like(v, change) for k, v in parts.items()}
    return reply_of(
        client, experts, [n] * len(experts), deltas, num_experts=4, num_examples=n
    )


def moved(strategy: Kin, before: dict[str, Vector]) -> dict[str, float]:
    """Return by how much every part moved, all its values alike."""
    changes = {part: v - before[part] for part, v in strategy.model.items()}
    for part, change in changes.items():
        assert np.ptp(change) < 1e-5, part
    return {part: float(change.mean()) for part, change in changes.items()}


def test_two_rounds_by_hand() -> None:
    strategy, said = kin(), fleet(0, 0.1, 9)
    start = dict(strategy.model)
    np.testing.assert_array_equal(start["expert.0"], start["expert.2"])
    np.testing.assert_array_equal(start["expert.1"], start["expert.3"])
    made = plan(strategy, [0, 1, 2], said)
    assert made.notes == ("group 0: c0, c1", "group 1: c2")
    # Slots 0 and 2 are of bank 0, 1 and 3 of bank 1; the larger group comes first.
    assert made.assignment.astype(int).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 1],
    ]
    for client, n, change in ((0, 10, 1), (1, 30, 3), (2, 40, 10)):
        strategy.merge(answer(strategy, made, client, client, n=n, change=change))
    strategy.finish()
    # Group 0: (10 + 90) / 40 = 2.5; group 1: 10; all: (10 + 90 + 400) / 80 = 6.25.
    found = moved(strategy, start)
    assert found["extractor"] == pytest.approx(6.25)
    for bank in (0, 1):
        assert found[f"expert.{bank}"] == pytest.approx(0.5 * 2.5 + 0.5 * 6.25)
        assert found[f"expert.{2 + bank}"] == pytest.approx(0.5 * 10 + 0.5 * 6.25)
    replies = [
        answer(strategy, made, c, c, n=n, change=0) for c, n in ((0, 10), (2, 40))
    ]
    strategy.learn(replies)
    assert strategy.loads.tolist() == [1, 1, 1, 1]
    assert strategy.seen.tolist() == [10, 40]
    # Client 2 alone: its group by all of it, the other by rho of it.
    before = dict(strategy.model)
    made = plan(strategy, [2], said)
    np.testing.assert_array_equal(
        made.content[2][f"expert.{np.flatnonzero(made.assignment[0])[0]}"],
        strategy.model["expert.2"],
    )
    strategy.merge(answer(strategy, made, 0, 2, n=40, change=2))
    strategy.finish()
    found = moved(strategy, before)
    assert found == pytest.approx(
        {"extractor": 2, "expert.0": 1, "expert.1": 1, "expert.2": 2, "expert.3": 2}
    )


def test_a_new_group_begins_at_the_mean_of_all() -> None:
    strategy, first = kin("projections=1,rho=0"), fleet(0, 0.1)
    start = dict(strategy.model)
    made = plan(strategy, [0, 1], first)
    for client, change in ((0, 1), (1, 3)):
        strategy.merge(answer(strategy, made, client, client, n=10, change=change))
    strategy.finish()
    made = plan(strategy, [2], fleet(0, 0.1, 50))
    assert made.notes == ("c2 is of group 1, by what it says of its samples",)
    assert strategy.serves(2) == 1
    expert = int(np.flatnonzero(made.assignment[0])[0])
    given = made.content[2][f"expert.{expert}"] - start[f"expert.{expert % 2}"]
    np.testing.assert_allclose(given, 2, rtol=1e-5)


def rounds_without_training(
    strategy: Kin, said: tuple[Any, ...], budgets: list[int], rounds: int = 44
) -> None:
    for _ in range(rounds):
        view = view_of(budgets, 4, fleet=said)
        made = strategy.plan(view)
        assert made.assignment.sum(1).tolist() == [min(b, 2) for b in budgets]
        strategy.learn(
            [answer(strategy, made, c, c, n=5, change=0) for c in range(len(budgets))]
        )


def test_slots_serve_alike_after_44_rounds() -> None:
    strategy = kin()
    rounds_without_training(strategy, fleet(0, 0, 0, 9, 9, 9), [2] * 6)
    assert strategy.members.count == 2
    assert coefficient_of_variation(strategy.loads) <= 0.01


def test_slots_serve_alike_where_budgets_differ() -> None:
    strategy = kin()
    rounds_without_training(strategy, fleet(0, 0, 0, 9, 9, 9), [1, 2, 4, 1, 1, 2])
    assert coefficient_of_variation(strategy.loads) <= 0.02


def test_who_holds_fewer_takes_the_banks_that_served_least() -> None:
    # Loads of the banks 3 + 1 and 1 + 2: the one of two clients with one expert takes
    # bank 1 (3 < 4), then both have 4 and the other takes the first.
    found = banks_of(np.array([1, 2, 1]), 2, np.array([3, 1, 1, 2]))
    assert found.astype(int).tolist() == [[0, 1, 1], [1, 1, 0]]


def run(name: str, **changes: Any) -> ExpertStrategy:
    config = {
        "strategy": name,
        "num-experts": 2,
        "expert-capacity": 1,
        "train-samples": 300,
        "local-epochs": 1,
        **changes,
    }
    loop, grid = RoundLoop(strategy_of(config)), InlineGrid(client_app, 4, config)
    for server_round in (1, 2):
        assert not step(loop, grid, server_round).rejected
    assert isinstance(loop.strategy, ExpertStrategy)
    return loop.strategy


def test_one_group_of_one_expert_is_fedavg_bit_for_bit() -> None:
    found, dense = run("kin"), run("fedavg")
    assert isinstance(found, Kin)
    assert found.members.count == 1
    for part, vector in dense.model.items():
        np.testing.assert_array_equal(found.model[part], vector, err_msg=part)
    x = torch.rand(9, 1, 8, 8)
    expected = dense.global_model()
    assert expected is not None
    torch.testing.assert_close(found.global_model().eval()(x), expected.eval()(x))


def test_with_rho_1_groups_are_fedavg_too() -> None:
    differ = {"partition": "concept:2+iid", "strategy-options": "rho=1"}
    found, dense = run("kin", **differ), run("fedavg", partition="concept:2+iid")
    assert isinstance(found, Kin)
    assert found.members.count == 2
    for part, vector in dense.model.items():
        np.testing.assert_array_equal(found.model[part], vector, err_msg=part)
    np.testing.assert_array_equal(found.model["expert.1"], found.model["expert.0"])


def test_two_experts_are_one_of_twice_the_hidden_units() -> None:
    model = kin().spec.build([0, 1], seed=3).eval()
    pair: list[Any] = [*model.moe.experts.values()]
    wide = torch.nn.Linear(pair[0].hidden.in_features, 4)
    out = torch.nn.Linear(4, 1)
    with torch.no_grad():
        wide.weight.copy_(torch.cat([e.hidden.weight for e in pair]))
        wide.bias.copy_(torch.cat([e.hidden.bias for e in pair]))
        out.weight.copy_(torch.cat([e.out.weight for e in pair], 1))
        out.bias.copy_(pair[0].out.bias + pair[1].out.bias)
    x = torch.rand(5, 1, 2, 2)
    expected = out(torch.relu(wide(model.extractor(x))))
    torch.testing.assert_close(model(x).logits, expected)
    torch.testing.assert_close(model.train()(x).logits, expected)


def test_a_run_is_repeated_and_resumed_bit_for_bit(exercise: Exercise) -> None:
    strategy, records = exercise(
        "kin",
        **{
            "num-experts": 4,
            "partition": "concept:2+iid",
            "expert-capacity": "1:0.5,2:0.5",
            "upload-dtype": "int8",
            "clients-per-round": 5,
            "server-average": 0.8,
        },
    )
    assert isinstance(strategy, Kin)
    assert strategy.members.count == 2
    assert records[0].notes[0].startswith("group 0: client-")
    assert records[1].notes == []


def test_what_a_client_is_handed_is_the_model_of_its_group() -> None:
    strategy = run("kin", **{"partition": "concept:2+iid", "num-experts": 4})
    assert isinstance(strategy, Kin)
    groups = [strategy.serves(client) for client in range(4)]
    assert sorted(set(groups)) == [0, 1]
    x = torch.rand(7, 1, 8, 8)
    each = [strategy.served_model(group).eval()(x) for group in (0, 1)]
    assert not torch.allclose(*each)
    shares = strategy.seen / strategy.seen.sum()
    mixed = shares[0] * each[0] + shares[1] * each[1]
    torch.testing.assert_close(strategy.global_model().eval()(x), mixed.float())
    assert isinstance(strategy.global_model(), GroupMixture)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("rho=2", "rho"),
        ("projections=129", "projections"),
        ("tua=3", "tau"),
    ],
)
def test_options_that_are_not_allowed(options: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        kin(options)
