"""A strategy of a user's that goes wrong: one line that says what, and no silence.

What it raises itself is shown as it is; here is what it gives that cannot be used.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server_app.commands.simulate import simulate
from server_app.run_error import RunError
from server_app.strategies.base import Plan, View
from server_app.strategies.baselines import Random

CONFIG: dict[str, Any] = {
    "num-rounds": 2,
    "num-experts": 4,
    "expert-capacity": "2:1.0",
    "local-epochs": 1,
    "train-samples": 100,
    "test-samples": 20,
    "strategy": f"{__name__}:Wrong",
}


class Wrong(Random):
    """Does as :class:`Random` but for what a test replaces."""

    name = "wrong"


def run(
    tmp_path: Path, patch: pytest.MonkeyPatch, *, wrong: dict[str, Any], **more: Any
) -> None:
    for name, value in wrong.items():
        patch.setattr(Wrong, name, value, raising=False)
    simulate({**CONFIG, "output-dir": str(tmp_path), **more}, 3)


def planning(change: Callable[[Wrong, View, Plan], Plan]) -> dict[str, Any]:
    def plan(self: Wrong, view: View) -> Plan:
        return change(self, view, Random.plan(self, view))

    return {"plan": plan}


def holding(assignment: Callable[[Any], Any]) -> dict[str, Any]:
    return planning(lambda _, view, plan: replace(plan, assignment=assignment(plan)))


def sending(part: str, vector: Callable[[Any], Any]) -> dict[str, Any]:
    def change(self: Wrong, view: View, plan: Plan) -> Plan:
        parts = {**self.model, part: vector(self.model["extractor"])}
        return replace(plan, content=dict.fromkeys(view.clients.tolist(), parts))

    return planning(change)


def ordering(**order: Any) -> dict[str, Any]:
    return planning(lambda _, view, plan: replace(plan, order=order))


def ending(change: Callable[[Wrong], object]) -> dict[str, Any]:
    def finish(self: Wrong) -> None:
        Random.finish(self)
        change(self)

    return {"finish": finish}


def leaving(part: str, vector: Callable[[Any], Any]) -> dict[str, Any]:
    return ending(
        lambda self: self.model.update({part: vector(self.model["expert.1"])})
    )


def using(usage: Any) -> dict[str, Any]:
    return ending(lambda self: setattr(self, "usage", np.array(usage)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            holding(lambda p: np.full(p.assignment.shape, np.nan)),
            "of float64: expected",
        ),
        (holding(lambda p: p.assignment.astype(object)), "of object: expected"),
        (holding(lambda p: np.ones_like(p.assignment)), "4 experts, its budget is 2"),
        (ordering(proximal=-1.0), "proximal is -1.0: must be greater than"),
        (ordering(no_such_field=1), "no-such-field is 1: Extra inputs"),
        (
            sending("extractor", lambda v: v[:3]),
            r"part extractor is float32\[3\], expect",
        ),
        (sending("extractor", lambda v: v.astype(float)), r"extractor is float64\["),
        (sending("extractor", list), "part extractor is list, expected float32"),
        (sending("x", lambda v: v), "the client's model has no part 'x'"),
        (
            leaving("expert.1", lambda v: v[:3]),
            r"part expert.1 of its model is float32",
        ),
        (leaving("expert.1", lambda v: v[None]), r"model is float32\[1, "),
        (leaving("expert.1", lambda v: v.astype(float)), r"model is float64\["),
        (leaving("expert.1", lambda _: None), "model is NoneType"),
        (leaving("expert.1", lambda v: v + np.float32(np.inf)), "infinity of expert.1"),
        (leaving("x", lambda v: v), r"added or dropped parts of its model: \['x'\]"),
        (ending(lambda self: self.model.pop("expert.1")), r"dropped .*'expert.1'"),
        (using([1.0, np.nan, 0.0, 0.0]), "usage is .*nan.* expected 4 numbers"),
        (using([1.0, -1.0, 0.0, 0.0]), "usage is .*, expected 4 numbers from 0 on"),
        (using([1.0]), "usage is .*, expected 4 numbers"),
        ({"remembers": ("seen",), "seen": {1}}, r"strategy\.seen cannot be kept"),
        ({"published": lambda _: {}}, "strategy publishes no parts"),
        (
            {"published": lambda self: {"extractor": self.model["extractor"] * np.nan}},
            "strategy publishes NaN in extractor",
        ),
    ],
)
def test_what_a_strategy_gives_and_cannot_be_used_is_named(
    wrong: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Devices take some of it for a while and train in vain: one round must be enough.
    with pytest.raises(RunError, match=said):
        run(tmp_path, monkeypatch, wrong=wrong, **{"num-rounds": 1})


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (lambda online: online >= 0, "samples .True, True, True.: expected some of"),
        (lambda online: [77], "samples .77.: expected some of .0, 1, 2"),
        (lambda online: None, "samples None"),
    ],
)
def test_a_sample_of_others_than_it_may_choose_is_named(
    chosen: Callable[[Any], Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = {"sample": lambda _, online, wanted, rng: chosen(online)}
    with pytest.raises(RunError, match=said):
        run(tmp_path, monkeypatch, wrong=wrong, **{"clients-per-round": 2})


def test_a_list_of_rows_is_a_sample_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"sample": lambda _, online, wanted, rng: online[:wanted].tolist()}
    run(tmp_path, monkeypatch, wrong=wrong, **{"clients-per-round": 2})
    assert [*tmp_path.glob("*/model.safetensors")]


def test_a_weight_that_is_none_is_no_weight_of_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TypeError):
        run(tmp_path, monkeypatch, wrong={"weight": lambda self, reply, part: None})
