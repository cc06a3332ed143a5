"""No strategy exceeds a budget or leaves out a layer, whatever the mix of layers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.settings import Settings
from server_app.assignment import ExpertLayers
from server_app.strategies import find_strategy
from server_app.strategies.base import ExpertStrategy, Plan
from tests.common.moe.support import text_spec
from tests.server_app.strategies.handmade import reply_of, view_of

NAMES = [
    "anchor-moe",
    "avg-moe",
    "fedjets",
    "fedmix",
    "flex-moe",
    "flex-moe-plus",
    "greedy",
    "hfedmoe",
    "kin",
    "random",
    "round-robin",
    "system-level",
]
ROUNDS = 3


def strategy_of(
    name: str, experts: int, depths: tuple[int, ...], **more: Any
) -> ExpertStrategy:
    config: dict[str, Any] = {
        "strategy": name,
        "backbone": "text-transformer",
        "encoder-layers": 3,
        "moe-layers": ",".join(map(str, depths)),
        "num-experts": experts,
        "expert-capacity": 1,
        "num-rounds": ROUNDS,
        "switching-cost": 0.1,
        **more,
    }
    if name == "fedjets":
        config["strategy-options"] = "warmup-rounds=1"
    spec = replace(text_spec(moe_layers=depths), num_experts=experts)
    return find_strategy(name)(Settings.from_run_config(config), spec)


def report(
    strategy: ExpertStrategy, plan: Plan, held: np.ndarray, rng: np.random.Generator
) -> Any:
    """What a client that holds these experts could say of its round."""
    said = {
        "num_examples": 10,
        "expert_accuracy": rng.random(len(held)).tolist(),
        "expert_loss": rng.random(len(held)).tolist(),
        "seconds_train": 1.0,
    }
    if not plan.order.get("report_gate"):
        return said
    mass = rng.random(strategy.spec.num_units)
    return said | {
        "gate_mass": mass.tolist(),
        "responsibility": rng.random(len(held)).tolist(),
        "input_information": (0.3 * mass).tolist(),
        "label_information": (0.3 * mass[::-1]).tolist(),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depths", [(2,), (1, 3), (1, 2, 3)])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    experts=st.integers(1, 4),
    sets=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_budgets_hold_and_layers_are_covered_round_by_round(
    name: str,
    depths: tuple[int, ...],
    experts: int,
    sets: list[int],
    seed: int,
) -> None:
    strategy, rng = strategy_of(name, experts, depths), np.random.default_rng(seed)
    layers = ExpertLayers(num_experts=experts, num_layers=len(depths))
    budgets = np.minimum(sets, experts) * len(depths)
    previous = np.zeros((len(sets), strategy.spec.num_units), dtype=bool)
    for server_round in range(1, ROUNDS + 1):
        view = view_of(
            budgets.tolist(),
            strategy.spec.num_units,
            server_round=server_round,
            layers=layers,
            previous=previous,
            profiles=tuple(_Profile() for _ in sets),
            rng=rng,
        )
        plan = strategy.plan(view)
        previous = plan.assignment
        assert (previous.sum(axis=1) <= budgets).all()
        assert not layers.missing(previous).any()
        if len(depths) > 1:
            assert previous.any(axis=1).all()
        strategy.learn(
            [
                reply_of(
                    client,
                    held.tolist(),
                    rng.integers(0, 20, len(held)).tolist(),
                    num_experts=experts,
                    server_round=server_round,
                    **report(strategy, plan, held, rng),
                )
                for client, row in enumerate(previous)
                if len(held := np.flatnonzero(row))
            ]
        )


@pytest.mark.parametrize("seed", range(3))
def test_flow_plans_layers_as_well_as_cp_sat(seed: int) -> None:
    plans = []
    for solver in ("auto", "flow", "cp-sat"):
        rules = {"solver": solver, "load-tolerance": 0.0, "seed": seed}
        strategy = strategy_of("flex-moe", 3, (1, 2), **rules)
        layers = ExpertLayers(num_experts=3, num_layers=2)
        plans.append(strategy.plan(view_of([2, 2, 4, 4, 6], 6, layers=layers)))
    names = [plan.solution.solver for plan in plans if plan.solution is not None]
    assert names == ["flow", "flow", "cp-sat"]
    for plan in plans:
        # 18 placements: three holders of each of six experts, and nobody without one.
        assert plan.assignment.sum(axis=0).tolist() == [3] * 6
        assert plan.assignment.sum(axis=1).tolist() == [2, 2, 4, 4, 6]
        assert plan.notes == ()
    objectives = {plan.solution.objective for plan in plans if plan.solution}
    assert len(objectives) == 1


class _Profile:
    """All that a plan reads of a profile."""

    expert_cap = 0
