"""Every strategy plans and learns under every choice its options offer.

The options are read from the classes, so a new option or choice is tried as well. All
choices (of a switch or a named alternative) are combined with each other; a number is
tried at the ends of its range, one at a time.
"""

import itertools
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from pydantic.fields import FieldInfo

from server_app.strategies import STRATEGIES, find_strategy
from tests.server_app.strategies.conftest import strategy_of
from tests.server_app.strategies.handmade import profile, reply_of, view_of

CLIENTS, EXPERTS = 5, 4
# What some cannot do without, at the smallest size.
NEEDS: dict[str, dict[str, Any]] = {
    "cent-moe": {"reserved-samples": 40},
    "fed-moe": {"reserved-samples": 40},
    "fedbn": {"backbone": "cnn", "norm": "batch"},
    "flex-moe-plus": {"reserved-samples": 40},
    "system-level": {"train-seconds": 10.0},
}
# Passes over data: their top end only takes longer.
PASSES = {"epochs", "gate_epochs", "iterations", "experts"}
PROFILE = profile(expert_cap=2)


def choices(field: FieldInfo) -> list[Any]:
    """What a switch or a named alternative can be; nothing for a number."""
    if field.annotation is bool:
        return [False, True]
    if get_origin(field.annotation) is Literal:
        return list(get_args(field.annotation))
    return []


def ends(name: str, field: FieldInfo) -> list[Any]:
    """The least and the greatest a number may be, as far as it has ends."""
    whole = field.annotation is int
    found: dict[str, Any] = {}
    for limit in field.metadata:
        for key in ("ge", "gt", "le", "lt"):
            if (value := getattr(limit, key, None)) is not None:
                found[key] = value
    least = found.get("ge", found.get("gt", 0) + (1 if whole else 1e-3))
    most = found.get("le", found["lt"] - 1e-3 if "lt" in found else 3)
    if name in PASSES:
        most = max(1, least)
    return [int(end) if whole else float(end) for end in (least, most)]


def cases() -> Iterator[tuple[str, str]]:
    for name in sorted(STRATEGIES.built_in):
        fields = find_strategy(name).Options.model_fields
        switches = {key: choices(field) for key, field in fields.items()}
        switches = {key: values for key, values in switches.items() if values}
        for values in itertools.product(*switches.values()):
            yield name, text(dict(zip(switches, values, strict=True)))
        for key, field in fields.items():
            if not choices(field):
                yield from ((name, text({key: end})) for end in ends(key, field))


def text(options: dict[str, Any]) -> str:
    def said(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return f'"{value}"' if isinstance(value, str) else str(value)

    return ", ".join(f"{k.replace('_', '-')}={said(v)}" for k, v in options.items())


@pytest.mark.parametrize(("name", "options"), sorted(set(cases())))
def test_two_rounds_can_be_planned_and_learnt_from(name: str, options: str) -> None:
    strategy = strategy_of(
        {
            "strategy": name,
            "strategy-options": options,
            "num-experts": EXPERTS,
            "num-rounds": 2,
            "expert-hidden": 4,
            **NEEDS.get(name, {}),
        }
    )
    units, experts = strategy.spec.num_units, strategy.spec.num_experts
    budgets = np.minimum([1, 2, 3, 4, 2], strategy.max_budget)
    rng = np.random.default_rng(0)
    held = np.zeros((CLIENTS, units), dtype=bool)
    for server_round in (1, 2):
        plan = strategy.plan(
            view_of(
                budgets.tolist(),
                experts,
                server_round=server_round,
                previous=held,
                profiles=(PROFILE,) * CLIENTS,
                rng=rng,
            )
        )
        held = plan.assignment
        assert held.shape == (CLIENTS, units)
        assert (held.sum(axis=1) <= budgets).all()
        replies = []
        for client in np.flatnonzero(held.any(axis=1)).tolist():
            mine = np.flatnonzero(held[client])
            said: dict[str, Any] = {
                "expert_accuracy": [0.5] * len(mine),
                "expert_loss": [1.0] * len(mine),
                "seconds_train": 1.0,
            }
            if plan.order.get("report_gate"):
                said["gate_mass"] = [1 / units] * units
                said["responsibility"] = [1 / len(mine)] * len(mine)
                said["input_information"] = said["label_information"] = [0.3] * units
            samples = rng.integers(0, 9, len(mine)).tolist()
            reply = reply_of(
                client, mine.tolist(), samples, num_experts=experts, **said
            )
            strategy.usage = strategy.usage + np.bincount(
                reply.experts, reply.samples, units
            )
            replies.append(reply)
        strategy.finish()
        strategy.learn(replies)
