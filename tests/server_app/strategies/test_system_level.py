"""The system-level approach by hand (docs/methods.md, 2)."""

from typing import Any

import numpy as np
import pytest

from common.errors import SettingsError
from common.moe import ModelSpec
from common.settings import Settings
from server_app.strategies.base import Reply, View
from server_app.strategies.system_level import SystemLevel, desirability
from tests.server_app.strategies import handmade

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=3,
    expert_hidden=4,
    top_k=1,
)


def strategy_of(options: str = "", **changes: Any) -> SystemLevel:
    config = {"num-experts": 3, "strategy-options": options, **changes}
    return SystemLevel(Settings.from_run_config(config), SPEC)


def view_of(budgets: list[int], **profile: Any) -> View:
    profiles = (handmade.profile(**profile),) * len(budgets)
    return handmade.view_of(budgets, 3, profiles=profiles)


def reply_of(
    client: int, experts: list[int], samples: list[int], loss: list[float]
) -> Reply:
    return handmade.reply_of(
        client, experts, samples, num_experts=3, expert_loss=loss, seconds_train=6.0
    )


def test_desirability_by_hand() -> None:
    # F / max F = 1, .5, .25; U / max U = 1, .5, 0; equal weights .5.
    score = desirability(np.array([[0.8, 0.4, 0.2]]), np.array([10.0, 5, 0]), 0.5, 0.5)
    np.testing.assert_allclose(score, [[0.0, 0.0, 0.125]])


@pytest.mark.parametrize(("weights", "chosen"), [((1, 0), [0, 1]), ((0, 1), [1, 2])])
def test_ranking_follows_the_weights(
    weights: tuple[int, int], chosen: list[int]
) -> None:
    options = f"fitness-weight={weights[0]}.0, usage-weight={weights[1]}.0"
    strategy = strategy_of(options)
    strategy.fitness = np.array([[0.9, 0.5, 0.1]])
    strategy.attention = np.array([9.0, 2.0, 1.0])
    strategy.seconds_per_expert = np.zeros(1)
    plan = strategy.plan(view_of([2]))
    assert np.flatnonzero(plan.assignment[0]).tolist() == chosen


def test_sequential_clients_avoid_what_others_were_given() -> None:
    options = "sequential=true, fitness-weight=0.1, usage-weight=1.0"
    strategy = strategy_of(options)
    strategy.fitness = np.tile([0.9, 0.5, 0.1], (3, 1))
    strategy.seconds_per_expert = np.zeros(3)
    together = strategy_of("fitness-weight=0.1, usage-weight=1.0")
    together.fitness, together.seconds_per_expert = strategy.fitness, np.zeros(3)
    view = view_of([1, 1, 1])
    assert strategy.plan(view).assignment.sum(0).tolist() == [1, 1, 1]
    assert together.plan(view).assignment.sum(0).tolist() == [3, 0, 0]


def test_learning_by_hand() -> None:
    strategy = strategy_of("loss-share=0.5, stale-decay=0.1, usage-decay=0.5")
    strategy.fitness = np.full((1, 3), 0.5)
    strategy.attention = np.array([4.0, 0.0, 8.0])
    strategy.seconds_per_expert = np.zeros(1)
    # r_0 = .5 exp(-ln 2) + .5 * .75 = .625; r_1 saw nothing it could be scored by.
    strategy.learn([reply_of(0, [0, 1], [30, 10], [np.log(2), np.log(4)])])
    r0, r1 = 0.5 * 0.5 + 0.5 * 0.75, 0.5 * 0.25 + 0.5 * 0.25
    expected = [[0.7 * 0.5 + 0.3 * r0, 0.7 * 0.5 + 0.3 * r1, 0.9 * 0.5]]
    np.testing.assert_allclose(strategy.fitness, expected)
    np.testing.assert_allclose(strategy.attention, [2 + 30, 0 + 10, 4])
    assert strategy.seconds_per_expert[0] == 3.0


def test_an_expert_without_samples_is_not_rewarded_for_its_loss() -> None:
    strategy = strategy_of()
    strategy.fitness, strategy.seconds_per_expert = np.full((1, 3), 0.5), np.zeros(1)
    strategy.learn([reply_of(0, [0, 1], [40, 0], [0.0, 0.0])])
    assert strategy.fitness[0, 0] > 0.5 > strategy.fitness[0, 1]


def test_server_estimate_comes_from_completion_times() -> None:
    strategy = strategy_of(
        'capacity="estimated"', **{"capacity-margin": 0.0, "train-seconds": 7.0}
    )
    view = view_of([3, 3])
    strategy.plan(view)
    assert strategy.capacity(view).tolist() == [3, 3]
    # Client 0 took 6 s for two experts: 3 s each, two fit into 7 s.
    strategy.learn([reply_of(0, [0, 1], [20, 20], [1.0, 1.0])])
    assert strategy.capacity(view).tolist() == [2, 3]


def test_the_margin_guards_against_a_device_that_reports_too_much() -> None:
    view = view_of([3], expert_cap=3)
    for margin, experts in ((0.3, 2), (0.0, 3)):
        changes: dict[str, Any] = {"capacity-margin": margin}
        assert strategy_of(**changes).capacity(view).tolist() == [experts]


def test_the_estimate_needs_to_know_the_time_there_is() -> None:
    with pytest.raises(SettingsError, match=r"train-seconds = 0\.0 is not allowed"):
        strategy_of('capacity="estimated"')
