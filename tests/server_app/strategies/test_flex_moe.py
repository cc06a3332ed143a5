"""FLEX-MoE's plan and deficit, worked out by hand (docs/methods.md, 1)."""

from typing import Any

import numpy as np
import pytest

from server_app.strategies.baselines import Greedy
from server_app.strategies.flex_moe import FlexMoE
from tests.server_app.strategies.conftest import strategy_of
from tests.server_app.strategies.handmade import reply_of, view_of

EXPERTS = 4


def flex_moe(name: str = "flex-moe", config: dict[str, Any] | None = None) -> FlexMoE:
    size = {"strategy": name, "num-experts": EXPERTS, "expert-hidden": 4}
    strategy = strategy_of(size | (config or {}))
    assert isinstance(strategy, FlexMoE)
    return strategy


@pytest.mark.parametrize("name", ["flex-moe", "flex-moe-plus"])
def test_a_round_of_one_reply_erases_nothing_that_is_owed(name: str) -> None:
    strategy = flex_moe(name)
    strategy.plan(view_of([2] * 20, EXPERTS))
    strategy.deficit = np.array([6.0, -6.0, 3.0, -3.0])
    strategy.learn([reply_of(0, [0, 1], [5, 5], num_experts=EXPERTS)])
    # Loads 1, 1, 0, 0: mean 1/2. Twenty took part, so nothing is near the limit.
    assert strategy.deficit.tolist() == [5.5, -6.5, 3.5, -2.5]


def test_the_deficit_winds_up_to_the_participants_and_no_further() -> None:
    strategy = flex_moe()
    # Of 20 known clients three take part, and two reply.
    strategy.plan(view_of([2] * 3, EXPERTS, num_clients=20))
    strategy.deficit = np.array([2.9, -2.9, 0.0, 0.0])
    replies = [reply_of(c, [1, 2], [5, 5], num_experts=EXPERTS) for c in (0, 1)]
    strategy.learn(replies)
    # Loads 0, 2, 2, 0: mean 1. 2.9 + 1 and -2.9 - 1 are beyond three participants.
    assert strategy.deficit.tolist() == [3.0, -3.0, -1.0, 1.0]


@pytest.mark.parametrize("solver", ["auto", "cp-sat", "flow"])
def test_what_a_client_that_drops_out_owes_is_paid_back(solver: str) -> None:
    # Eight clients of one expert each, and client 0 never answers.
    strategy = flex_moe(config={"solver": solver})
    total = np.zeros(EXPERTS)
    for server_round in range(1, 21):
        held = strategy.plan(
            view_of([1] * 8, EXPERTS, server_round=server_round)
        ).assignment
        replies = [
            reply_of(
                client,
                np.flatnonzero(held[client]).tolist(),
                [10],
                num_experts=EXPERTS,
                expert_accuracy=[0.5],
            )
            for client in range(1, 8)
        ]
        strategy.learn(replies)
        total += held[1:].sum(axis=0)
    # Seven answers a round, 140 in all, 35 an expert.
    assert total.sum() == 140
    assert np.ptp(total) <= 2


@pytest.mark.parametrize("name", ["flex-moe", "flex-moe-plus"])
def test_a_fitness_that_has_all_but_vanished_ends_no_run(name: str) -> None:
    # exp(-alpha l) with a large alpha is this small for all but the best pairs.
    strategy = flex_moe(name)
    strategy.fitness = np.full((6, EXPERTS), 1e-200)
    strategy.fitness[0, 0] = 0.9
    held = strategy.plan(view_of([2] * 6, EXPERTS)).assignment
    assert held.sum(axis=1).tolist() == [2] * 6
    assert held[0, 0]


def idle_round(strategy: FlexMoE | Greedy, honest: float) -> None:
    """Client 0 held experts 0 and 1; its gate sent all samples to expert 0."""
    strategy.learn(
        [
            reply_of(
                0,
                [0, 1],
                [12, 0],
                num_experts=EXPERTS,
                expert_accuracy=[honest, 0.0],
                expert_loss=[-np.log(honest), 0.0],
            )
        ]
    )


@pytest.mark.parametrize("kind", ["accuracy", "loss"])
@pytest.mark.parametrize("name", ["flex-moe", "flex-moe-plus", "greedy"])
def test_an_idle_pair_looks_worse_than_an_honest_one(name: str, kind: str) -> None:
    strategy = strategy_of(
        {"strategy": name, "num-experts": EXPERTS, "expert-hidden": 4, "fitness": kind}
    )
    assert isinstance(strategy, FlexMoE | Greedy)
    view = view_of([2], EXPERTS)
    strategy.plan(view)
    strategy.fitness[:] = 0.5
    idle_round(strategy, honest=0.3)
    # Ten classes: 0.7 * 0.5 + 0.3 * 0.3 and 0.7 * 0.5 + 0.3 * 0.1.
    np.testing.assert_allclose(strategy.fitness, [[0.44, 0.38, 0.5, 0.5]])
    idle_round(strategy, honest=0.3)
    # 0.7 * 0.44 + 0.09 and 0.7 * 0.38 + 0.03; two rounds have told them apart.
    np.testing.assert_allclose(strategy.fitness, [[0.398, 0.296, 0.5, 0.5]])


def test_the_paper_says_nothing_of_idle_pairs_and_can_be_followed() -> None:
    strategy = flex_moe(config={"idle-fitness": "frozen"})
    strategy.fitness = np.full((1, EXPERTS), 0.5)
    idle_round(strategy, honest=0.3)
    np.testing.assert_allclose(strategy.fitness, [[0.44, 0.5, 0.5, 0.5]])


@pytest.mark.parametrize("cost", [0.3, 0.5, 0.5000005, 1.0, 1000.0])
def test_a_switching_cost_as_large_as_the_fitness_ends_no_run(cost: float) -> None:
    # Untried pairs are 0.5 and at most 1e-6 more: next to nothing is left of them.
    strategy = flex_moe(config={"switching-cost": cost})
    held = np.zeros((6, EXPERTS), dtype=bool)
    for server_round in (1, 2, 3):
        view = view_of([2] * 6, EXPERTS, server_round=server_round, previous=held)
        held = strategy.plan(view).assignment
        assert (held.sum(axis=0) >= 2).all()
        strategy.fitness[held] = 0.9


@pytest.mark.parametrize("cost", [0.5, 5.0, 1000.0])
def test_a_switching_cost_above_all_fitness_leaves_nobody_empty(cost: float) -> None:
    strategy = flex_moe(config={"switching-cost": cost})
    first = strategy.plan(view_of([1, 2, 2, 1], EXPERTS)).assignment
    assert first.sum(axis=1).tolist() == [1, 2, 2, 1]
    # Now expert 3 is better everywhere, by less than the cost: nothing moves, and
    # who came back without anything is filled.
    strategy.fitness[:, 3] = 0.9
    had = first.copy()
    had[0] = False
    second = strategy.plan(view_of([1, 2, 2, 1], EXPERTS, previous=had)).assignment
    assert (second[1:] == first[1:]).all()
    assert second[0].sum() == 1
