"""FLEX-MoE+: what is added to FLEX-MoE, by hand, and that it can be turned off."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.errors import SettingsError
from common.moe.ensemble import ServerGated, UsageMixture
from common.settings import Settings
from common.settings.training_settings import TrainingSettings
from common.shape import dataset_of, model_spec
from server_app.run_folder.checkpoint import decode, encode
from server_app.strategies.flex_moe import FlexMoE
from server_app.strategies.flex_moe_plus import FlexMoEPlus
from server_app.strategies.server_gate import train_gate
from tests.server_app.strategies.handmade import reply_of, spec_of, view_of

EXPERTS = 4
SPEC = spec_of(EXPERTS)
NOTHING = "rotation=0.0, exploration=0.0, soft=false"


def settings_of(options: str = "", rounds: int = 8) -> Settings:
    return Settings.from_run_config(
        {
            "num-experts": EXPERTS,
            "num-rounds": rounds,
            "strategy-options": options,
            "load-tolerance": 0.0,
        }
    )


def play(
    strategy: FlexMoE, budgets: Sequence[int], rounds: int
) -> list[np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    """Plan rounds in which client c is best served by expert c."""
    plans = []
    for number in range(1, rounds + 1):
        plan = strategy.plan(view_of(budgets, EXPERTS, server_round=number))
        plans.append(plan.assignment)
        replies = []
        for client, row in enumerate(plan.assignment):
            held = np.flatnonzero(row).tolist()
            replies.append(
                reply_of(
                    client,
                    held,
                    [10] * len(held),
                    num_experts=EXPERTS,
                    server_round=number,
                    expert_accuracy=[1.0 if e == client else 0.5 for e in held],
                )
            )
        strategy.finish()
        strategy.learn(replies)
    return plans


def test_with_nothing_added_it_is_flex_moe() -> None:
    budgets = [1, 2, 2, 3]
    plus = FlexMoEPlus(settings_of(NOTHING), SPEC)
    flex = FlexMoE(settings_of(), SPEC)
    for mine, theirs in zip(
        play(plus, budgets, 6), play(flex, budgets, 6), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert plus.plan(view_of(budgets, EXPERTS)).order == {}
    for part, vector in flex.published().items():
        np.testing.assert_array_equal(plus.published()[part], vector)


def test_rotation_tries_every_pair_before_any_twice() -> None:
    strategy = FlexMoEPlus(settings_of(rounds=4), SPEC)
    plans = play(strategy, [1, 1, 1, 1], 4)
    np.testing.assert_array_equal(np.sum(plans, axis=0), np.ones((4, EXPERTS)))
    for plan in plans:
        np.testing.assert_array_equal(plan.sum(axis=0), np.ones(EXPERTS))


@pytest.mark.parametrize(("rotation", "last"), [("0.5", 2), ("0.0", 0)])
def test_a_run_that_is_made_longer_does_not_rotate_again(
    rotation: str, last: int
) -> None:
    options = f"rotation={rotation}"
    short = FlexMoEPlus(settings_of(options, rounds=4), SPEC)
    longer = FlexMoEPlus(settings_of(options, rounds=40), SPEC)
    play(short, [1, 1, 1, 1], 4)
    longer.load_state(decode(encode(short.state())))
    assert longer.rotates_until == last
    view = view_of([1, 1, 1, 1], EXPERTS, server_round=5)
    np.testing.assert_array_equal(longer.fitness_of(view), short.fitness_of(view))


def test_rotation_in_all_rounds_means_those_of_a_longer_run_as_well() -> None:
    short = FlexMoEPlus(settings_of(rounds=4), SPEC)
    longer = FlexMoEPlus(settings_of(rounds=40), SPEC)
    assert short.rotates_until == longer.rotates_until


def test_rotation_leaves_no_budget_unused() -> None:
    budgets = [1, 2, 2, 1, 3]
    for plan in play(FlexMoEPlus(settings_of(rounds=9), SPEC), budgets, 9):
        np.testing.assert_array_equal(plan.sum(axis=1), budgets)


def test_after_rotating_for_half_the_rounds_fitness_decides() -> None:
    options = "rotation=0.5, exploration=0.0"
    plans = play(FlexMoEPlus(settings_of(options), SPEC), [1, 1, 1, 1], 8)
    np.testing.assert_array_equal(np.sum(plans[:4], axis=0), np.ones((4, EXPERTS)))
    for plan in plans[4:]:
        np.testing.assert_array_equal(plan, np.eye(EXPERTS, dtype=bool))


def test_the_bonus_is_ucb() -> None:
    strategy = FlexMoEPlus(settings_of("rotation=0.0, exploration=2.0"), SPEC)
    strategy.fitness_of(view_of([1], EXPERTS))
    strategy.fitness[0] = [0.1, 0.2, 0.3, 0.4]
    strategy.tried = np.array([[0.0, 3.0, 8.0, 0.0]])
    found = strategy.fitness_of(view_of([1], EXPERTS, server_round=3))
    # 2 sqrt(ln 4) = 2.354820; halved for 3 rounds, a third for 8.
    expected = [[0.1 + 2.354820, 0.2 + 1.177410, 0.3 + 0.784940, 0.4 + 2.354820]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_clients_are_asked_for() -> None:
    # All experts on all samples: what a device is planned to hold and compute follows.
    assert FlexMoEPlus(settings_of(), SPEC).spec.top_k == 0
    assert FlexMoEPlus(settings_of("soft=false"), SPEC).spec.top_k == SPEC.top_k


def test_rotation_ends_with_the_last_round_of_its_share() -> None:
    strategy = FlexMoEPlus(settings_of("rotation=0.5, exploration=0.0"), SPEC)
    strategy.fitness_of(view_of([1], EXPERTS))
    strategy.tried = np.array([[3.0, 1.0, 0.0, 2.0]])
    fitness = strategy.fitness[0].copy()

    def found(server_round: int) -> NDArray[np.float64]:
        view = view_of([1], EXPERTS, server_round=server_round)
        return strategy.fitness_of(view)[0]

    # Half of eight rounds rotate: the fourth still does, the fifth does not.
    np.testing.assert_allclose(found(4), fitness + np.array([0.0, 2.0, 3.0, 1.0]))
    np.testing.assert_allclose(found(5), fitness)


def test_what_it_remembers_survives_a_checkpoint() -> None:
    settings = settings_of("rotation=0.25")
    first, second = FlexMoEPlus(settings, SPEC), FlexMoEPlus(settings, SPEC)
    play(first, [1, 1, 2, 2], 3)
    second.load_state(decode(encode(first.state())))
    second.model = first.model
    np.testing.assert_equal(second.state(), first.state())
    view = view_of([1, 1, 2, 2], EXPERTS, server_round=4)
    np.testing.assert_array_equal(
        second.plan(view).assignment, first.plan(view).assignment
    )


def test_clients_that_join_later_start_untried() -> None:
    strategy = FlexMoEPlus(settings_of(), SPEC)
    play(strategy, [1, 1], 2)
    strategy.plan(view_of([1, 1, 1], EXPERTS, server_round=3))
    assert strategy.tried.shape == (3, EXPERTS)
    assert strategy.tried[2].sum() == 0
    assert strategy.tried.sum() == 4


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ValueError, match="rotaton"):
        FlexMoEPlus(settings_of("rotaton=1.0"), SPEC)


def test_a_server_gate_needs_reserved_samples() -> None:
    with pytest.raises(SettingsError, match=r"reserved-samples = 0 .*gate-epochs"):
        FlexMoEPlus(settings_of("gate-epochs=1"), SPEC)


def test_a_server_gate_is_refused_inside_an_encoder() -> None:
    config = {
        "backbone": "text-transformer",
        "reserved-samples": 10,
        "strategy-options": "gate-epochs=1",
    }
    settings = Settings.from_run_config(config)
    with pytest.raises(SettingsError, match=r"gate-epochs.*text-transformer"):
        FlexMoEPlus.parse_options(settings)


def test_the_server_gate_sends_each_sample_to_the_expert_that_knows_it() -> None:
    """Two experts that always say one class: only a gate can be right about both."""
    model = SPEC.build(range(EXPERTS))
    with torch.no_grad():
        for number, expert in model.moe.experts.items():
            sure = torch.tensor([8.0, -8.0]) * (-1) ** int(number)
            expert.get_parameter("out.weight").zero_()
            expert.get_parameter("out.bias").copy_(sure)
        for parameter in model.extractor.parameters():
            parameter.zero_()
        model.extractor.get_parameter("hidden.weight")[0, 0] = 1.0
    x = torch.zeros(200, 1, 2, 2)
    x[100:, 0, 0, 0] = 4.0
    y = torch.arange(200) // 100
    mixture = ServerGated(model, [5, 1, 1, 1])
    # By usage, six of eight parts for class 0: half of the samples are wrong.
    assert (mixture(x).argmax(1) == y).float().mean() == 0.5
    torch.testing.assert_close(mixture(x), UsageMixture(model, [5, 1, 1, 1])(x))
    rng = np.random.default_rng(0)
    train_gate(mixture, (x, y), training=TrainingSettings(), epochs=40, rng=rng)
    assert (mixture(x).argmax(1) == y).all()
    assert set(mixture.answer(x).experts[y == 1].tolist()) <= {1, 3}


def test_the_server_gate_is_trained_and_remembered() -> None:
    settings = Settings.from_run_config(
        {
            "num-experts": EXPERTS,
            "reserved-samples": 100,
            "strategy-options": "gate-epochs=1",
        }
    )
    spec = model_spec(settings, dataset_of(settings))
    first, second = FlexMoEPlus(settings, spec), FlexMoEPlus(settings, spec)
    first.learn([])
    assert np.abs(first.server_gate).max() > 0
    second.load_state(decode(encode(first.state())))
    second.model = first.model
    x = torch.rand(5, *spec.input_shape)
    predictors = second.global_model(), first.global_model()
    assert predictors[0] is not None and predictors[1] is not None
    torch.testing.assert_close(predictors[0](x), predictors[1](x), rtol=0, atol=0)
    assert not any("gate" in part for part in first.model)
