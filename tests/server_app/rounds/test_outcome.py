"""Whether a round may be merged, and what the strategy makes of it: by hand."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.parts import expert_part
from common.settings import Settings
from common.wire import WireError
from server_app.contract import Reply
from server_app.rounds.outcome import (
    Outcome,
    learnt,
    mostly_refused,
    restore_learnt,
    too_few,
)
from server_app.run_error import RunError
from server_app.strategies.flex_moe import FlexMoE
from tests.server_app.strategies.handmade import reply_of, spec_of

EXPERTS = 2


class Watched(FlexMoE):
    """Merges as any other; says what it learnt from, and fails where told."""

    fails: tuple[int, ...] = ()

    def merge(self, reply: Reply) -> None:
        super().merge(reply)
        if reply.client in self.fails:
            raise ZeroDivisionError("a bug")

    def learn(self, replies: Any) -> None:
        self.learnt_from = [reply.client for reply in replies]


def outcome_of(**config: Any) -> tuple[Watched, Outcome]:
    changes = {key.replace("_", "-"): value for key, value in config.items()}
    settings = Settings.from_run_config({"num-experts": EXPERTS, **changes})
    strategy = Watched(settings, spec_of(EXPERTS))
    return strategy, Outcome(strategy)


def merge(
    outcome: Outcome,
    strategy: Watched,
    client: int,
    value: float,
    *,
    expert: int = 0,
    samples: int = 10,
) -> None:
    """Merge the reply of a client whose parts all changed by a value."""
    parts = ("extractor", expert_part(expert))
    deltas = {part: np.full_like(strategy.model[part], value) for part in parts}
    reply = reply_of(client, [expert], [samples], deltas, num_experts=EXPERTS)
    report = reply.report.model_copy(update={"client": f"client-{client}"})
    reply = replace(reply, report=report)
    outcome.merge(reply, dict.fromkeys(parts, value), {})


def moved(strategy: Watched, before: Mapping[str, Any]) -> dict[str, float]:
    """Return how far the parts moved that did, each by one value throughout."""
    found = {part: strategy.model[part] - before[part] for part in before}
    return {part: float(np.mean(by)) for part, by in found.items() if by.any()}


def test_too_few_replies_are_told_with_three_reasons() -> None:
    assert too_few(0, 2, []) == "0 of at least 2 replies (no reply in time)"
    assert too_few(1, 5, ["d", "b", "a", "b", "c"]) == (
        "1 of at least 5 replies (a; b; c)"
    )


def test_half_refused_are_not_most() -> None:
    assert mostly_refused(0, 0) == mostly_refused(2, 2) == ""
    assert mostly_refused(3, 2) == "3 of 5 replies were refused"


def test_the_model_moves_by_the_weighted_mean_and_the_strategy_learns() -> None:
    strategy, outcome = outcome_of()
    before = {part: vector.copy() for part, vector in strategy.model.items()}
    merge(outcome, strategy, 1, 4.0, expert=1, samples=10)
    merge(outcome, strategy, 0, 8.0, samples=30)
    assert moved(strategy, before) == {}
    assert outcome.finish(1, {}) == []
    # (10 * 4 + 30 * 8) / 40 of the extractor; each expert had one holder.
    assert moved(strategy, before) == pytest.approx(
        {"extractor": 7.0, "expert.0": 8.0, "expert.1": 4.0}, abs=1e-5
    )
    assert outcome.merged
    assert strategy.learnt_from == [0, 1]  # by row, whoever was first
    assert strategy.usage.tolist() == [30, 10]
    assert (outcome.load().tolist(), outcome.samples().tolist()) == ([1, 1], [30, 10])
    assert not any(reply.deltas for reply in outcome.replies)


def test_an_expert_of_too_few_holders_stays_and_is_told() -> None:
    strategy, outcome = outcome_of(min_holders=2)
    before = {part: vector.copy() for part, vector in strategy.model.items()}
    for client, expert in enumerate((0, 0, 1)):
        merge(outcome, strategy, client, 1.0, expert=expert)
    assert outcome.finish(1, {}) == [
        "not merged for lack of holders (min-holders = 2): experts 1"
    ]
    assert sorted(moved(strategy, before)) == ["expert.0", "extractor"]


def test_where_nobody_was_asked_nothing_is_merged() -> None:
    _, outcome = outcome_of()
    assert outcome.finish(1, {}) == ["nobody was asked, and the model is what it was"]
    assert not outcome.merged


def test_what_is_far_above_the_others_is_told_while_nothing_is_known() -> None:
    strategy, outcome = outcome_of(norm_bound=4.0)
    for client, value in enumerate((1.0, 1.0, 9.0)):
        merge(outcome, strategy, client, value)
    assert outcome.far_off() == (
        "nothing was known before of how far parts change, and client-2 9 times the "
        "median is too far"
    )
    outcome.drop(enough=True)  # now it is known
    assert strategy.bounds.recent["extractor"] == [1.0]
    again = Outcome(strategy)
    merge(again, strategy, 2, 9.0)
    assert again.far_off() == ""


def test_of_a_round_that_is_dropped_nothing_is_left() -> None:
    strategy, outcome = outcome_of()
    before = {part: vector.copy() for part, vector in strategy.model.items()}
    merge(outcome, strategy, 0, 1.0)
    outcome.drop(enough=False)
    assert outcome.replies == [] and strategy.bounds.recent == {}
    again = Outcome(strategy)
    again.go_on(outcome)
    again.finish(1, {})
    assert moved(strategy, before) == {} and not again.merged


def test_an_attempt_goes_on_with_what_was_merged_before() -> None:
    strategy, first = outcome_of()
    merge(first, strategy, 0, 1.0)
    second = Outcome(strategy)
    second.go_on(first)
    merge(second, strategy, 1, 3.0)
    second.finish(1, {})
    assert [reply.client for reply in second.replies] == [0, 1]


def test_of_a_reply_that_cannot_be_merged_nothing_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strategy, outcome = outcome_of()
    before = {part: vector.copy() for part, vector in strategy.model.items()}
    strategy.fails = (1, 2)
    merge(outcome, strategy, 0, 1.0)
    for client in strategy.fails:
        with pytest.raises(WireError, match="cannot be merged: ZeroDivisionError: a b"):
            merge(outcome, strategy, client, 5.0)
    assert caplog.text.count("a reply cannot be merged") == 1
    outcome.finish(1, {})
    assert moved(strategy, before)["extractor"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("clients", [1, 2])
def test_where_none_of_several_can_be_merged_it_is_the_strategy(clients: int) -> None:
    strategy, outcome = outcome_of()
    strategy.fails = (0, 1)
    for client in range(clients):
        with pytest.raises(WireError):
            merge(outcome, strategy, client, 1.0)
    if clients == 1:
        outcome.drop(enough=False)
    else:
        with pytest.raises(ZeroDivisionError):
            outcome.drop(enough=False)


def test_a_model_that_no_client_can_train_is_an_error() -> None:
    strategy, outcome = outcome_of()
    finish = strategy.finish

    def diverges() -> None:
        finish()
        strategy.model["extractor"][0] = np.nan

    strategy.finish = diverges  # type: ignore[method-assign]
    merge(outcome, strategy, 0, 1.0)
    with pytest.raises(RunError, match=r"round 3: .*made NaN or infinity of extractor"):
        outcome.finish(3, {})


def test_what_was_learnt_is_gone_back_to() -> None:
    strategy, outcome = outcome_of(server_average=0.5)
    merge(outcome, strategy, 0, 1.0)
    outcome.finish(1, {})
    kept = deepcopy(learnt(strategy))  # as a checkpoint has it
    later = Outcome(strategy)
    merge(later, strategy, 0, 3.0)
    later.finish(2, {})
    unfinished = Outcome(strategy)
    merge(unfinished, strategy, 0, 3.0)
    restore_learnt(strategy, kept)
    assert strategy.bounds.recent["extractor"] == [1.0]
    assert strategy.average.rounds == 1
    strategy.finish()  # nothing of the sums is left to apply
    for part, vector in kept["model"].items():
        np.testing.assert_array_equal(strategy.model[part], vector)
