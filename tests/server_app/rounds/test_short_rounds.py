"""Rounds with too few replies, runs in which nothing was merged, runs that stop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from common import wire
from common.inline_grid import InlineGrid
from common.wire import TrainOrder
from server_app.rounds.evaluation import ServerEvaluation
from server_app.run_error import RunError
from server_app.run_folder.checkpoint import newest_intact
from server_app.strategies import ExpertStrategy, Plan
from server_app.strategies.flex_moe import FlexMoE
from tests.whole_runs import app_with, only_run, rounds_of, serve

SMALL: dict[str, Any] = {
    "num-rounds": 2,
    "num-experts": 2,
    "expert-capacity": 1,
    "local-epochs": 1,
    "test-samples": 20,
    "strategy": "random",
}


class Failing:
    """The real ClientApp, which fails an order where told."""

    def __init__(self) -> None:
        self.app = app_with(train=self._train)
        self.orders: list[tuple[int, int, int]] = []

    def _train(self, message: Message, context: Context) -> Message:
        order = wire.decode_order(message.content)
        partition = int(context.node_config["partition-id"])
        self.orders.append((order.server_round, order.attempt, partition))
        if self.fails(order, partition):
            raise OSError("mains flicker")
        return client_app(message, context)

    def fails(self, order: TrainOrder, partition: int) -> bool:
        return True


def run(
    folder: Path, app: ClientApp = client_app, clients: int = 3, **changes: Any
) -> list[dict[str, Any]]:
    """Run to the end, raise what ends it, return the rounds."""
    config = {**SMALL, "output-dir": str(folder)}
    config |= {key.replace("_", "-"): value for key, value in changes.items()}
    serve(config, InlineGrid(app, clients, config))
    return rounds_of(only_run(folder))


def test_the_attempts_of_a_round_count_as_one_round(tmp_path: Path) -> None:
    class Flicker(Failing):
        """In round 1 clients 0 and 1 never answer, client 2 not before the end."""

        def fails(self, order: TrainOrder, partition: int) -> bool:
            last = order.attempt == 3
            return order.server_round == 1 and not (partition == 2 and last)

    flicker = Flicker()
    run(tmp_path, flicker.app)
    # Three attempts get no reply, the fourth gets one. All are asked in round 2.
    first = [(1, attempt, client) for attempt in range(4) for client in range(3)]
    assert flicker.orders == [*first, *((2, 0, client) for client in range(3))]


def test_who_answered_an_attempt_that_was_dropped_has_answered(tmp_path: Path) -> None:
    class Fickle(Failing):
        """Of three clients one fails, another one in each attempt of round 1."""

        def fails(self, order: TrainOrder, partition: int) -> bool:
            return order.server_round == 1 and order.attempt == partition

    [first, second] = run(tmp_path, Fickle().app, min_replies=3)
    assert first["merged"] and second["merged"]
    assert len(first["notes"]) == 3
    [folder] = [path.parent for path in tmp_path.glob("*/run.json")]
    found = newest_intact(folder)
    assert found is not None
    assert found[1]["fleet"]["failures"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("policy", ["skip", "repeat"])
def test_a_run_in_which_nobody_ever_answers_has_failed(
    tmp_path: Path, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RunError, match=r"round 2: .*0 of at least 1.*mains"):
        run(tmp_path, Failing().app, short_round=policy)
    rounds = rounds_of(only_run(tmp_path))
    assert [(r["round"], r["merged"]) for r in rounds] == [(1, False), (2, False)]
    for record in rounds:
        assert record["cv_round"] is record["cv_cumulative"] is None
        assert record["cv_samples"] is None
    assert not list(tmp_path.glob("*/model.safetensors"))
    assert list(tmp_path.glob("*/report.html"))


def test_a_run_that_failed_does_not_succeed_by_going_on_with_nothing(
    tmp_path: Path,
) -> None:
    with pytest.raises(RunError):
        run(tmp_path, Failing().app)
    [folder] = [path.parent for path in tmp_path.glob("*/run.json")]
    with pytest.raises(RunError, match="no round of this run was merged"):
        run(tmp_path, resume_from=str(folder))
    assert not (folder / "model.safetensors").exists()
    # With rounds to do it can still become a run.
    rounds = run(tmp_path, resume_from=str(folder), num_rounds=3)
    assert [record["merged"] for record in rounds] == [False, False, True]
    assert (folder / "model.safetensors").exists()


def test_going_on_without_a_reply_is_a_failure_that_leaves_the_model(
    tmp_path: Path,
) -> None:
    run(tmp_path)
    [folder] = [path.parent for path in tmp_path.glob("*/run.json")]
    model = (folder / "model.safetensors").read_bytes()
    with pytest.raises(RunError):
        run(tmp_path, Failing().app, resume_from=str(folder), num_rounds=3)
    assert (folder / "model.safetensors").read_bytes() == model
    # Nothing to do is no failure.
    run(tmp_path, resume_from=str(folder), num_rounds=3)


def test_one_round_that_was_merged_makes_a_run(tmp_path: Path) -> None:
    class Late(Failing):
        def fails(self, order: TrainOrder, partition: int) -> bool:
            return order.server_round == 1

    first, second = run(tmp_path, Late().app, short_round="skip")
    assert first["cv_round"] is None and second["cv_round"] is not None
    assert not first["merged"] and second["merged"]
    # Once, though the round ends before its evaluation and is closed after it.
    assert [note[:16] for note in first["notes"]] == ["round not merged"]


class AsksNobody(ExpertStrategy):
    name = "asks-nobody"

    def plan(self, view: Any) -> Plan:
        return Plan(assignment=np.zeros_like(view.previous))


def test_a_plan_without_participants_is_not_a_success(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nobody was asked"):
        run(tmp_path, strategy=f"{__name__}:AsksNobody")


class Breaks(FlexMoE):
    """Fails in round 2, the first time."""

    name = "breaks"
    wrong = True
    with_what: type[BaseException] = ZeroDivisionError

    def learn(self, replies: Any) -> None:
        if Breaks.wrong and replies[0].order.server_round == 2:
            Breaks.wrong = False
            raise Breaks.with_what("a bug")
        super().learn(replies)


@pytest.mark.parametrize("stopped_by", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["strategy", "evaluation"])
def test_what_stops_a_run_leaves_one_to_go_on_with(
    tmp_path: Path,
    stopped_by: type[BaseException],
    where: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Breaks, "with_what", stopped_by)
    strategy, gates = f"{__name__}:Breaks", str(tmp_path / "gates")
    changes: dict[str, Any] = {"strategy": strategy, "state_dir": gates}
    monkeypatch.setattr(Breaks, "wrong", False)
    run(tmp_path / "whole", **changes)
    whole = next((tmp_path / "whole").glob("*/model.safetensors")).read_bytes()

    monkeypatch.setattr(Breaks, "wrong", where == "strategy")
    evaluate = ServerEvaluation.__call__

    def broken(self: ServerEvaluation, server_round: int, arrays: Any) -> Any:
        if server_round == 2:
            raise stopped_by("a bug")
        return evaluate(self, server_round, arrays)

    with monkeypatch.context() as patch:
        if where == "evaluation":
            patch.setattr(ServerEvaluation, "__call__", broken)
        with pytest.raises(stopped_by, match="a bug"):
            run(tmp_path / "part", **changes)
    [folder] = [path.parent for path in (tmp_path / "part").glob("*/run.json")]
    assert f'after round 1; to go on: resume-from="{folder}"' in caplog.text
    rounds = run(tmp_path / "part", resume_from=str(folder), **changes)
    assert [record["round"] for record in rounds] == [1, 2]
    assert (folder / "model.safetensors").read_bytes() == whole
