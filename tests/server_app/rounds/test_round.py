"""One round: which replies count, in any order, and what ends it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from safetensors.numpy import load_file

from client_app.app import app as client_app
from common import wire
from common.inline_grid import InlineGrid
from server_app.contract import Plan
from server_app.rounds.loop import RoundLoop
from server_app.run_error import RunError
from tests.server_app.rounds.runs import CLIENTS, run, settings_of, strategy_of
from tests.whole_runs import fill, lying


def test_order_of_arrival_does_not_matter() -> None:
    config = settings_of()
    models = []
    for backwards in (False, True):
        strategy = strategy_of(config)
        grid = InlineGrid(client_app, CLIENTS, config)
        loop = RoundLoop(strategy)
        for server_round in (1, 2):
            messages = loop.open(server_round, grid)
            replies = grid.send_and_receive(messages)
            for reply in reversed(replies) if backwards else replies:
                loop.accept(reply)
            loop.close()
        models.append(strategy.model)
    for part, vector in models[0].items():
        np.testing.assert_array_equal(vector, models[1][part])


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("server-round", 99, "round 99"),
        ("expert-accuracy", [2.0, 2.0], "expert-accuracy"),
        ("client", "client-1", "calls itself"),
        ("code-hash", "0" * 16, "other code"),
        ("num-examples", 0, "at least one"),
    ],
)
def test_a_bad_reply_is_rejected_with_its_reason_and_not_merged(
    tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    def change(content: RecordDict, _: int) -> None:
        content.config_records[wire.REPORT][key] = value
        # Would show in the merged model if it were used.
        fill(content, 1e3)

    folder, rounds = run(tmp_path, settings_of(), lying(change))
    # Asked in rounds 1 and 2; after two failures in a row it rests in round 3.
    for record in rounds[:2]:
        assert reason in record["rejected"]["client-0"]
    assert rounds[2]["rejected"] == {}
    for record in rounds:
        assert sum(record["load"]) == 2 * (CLIENTS - 1)
    for tensor in load_file(folder / "model.safetensors").values():
        assert np.abs(tensor).max() < 100


def test_a_client_that_raises_is_noted_and_the_run_goes_on(tmp_path: Path) -> None:
    def change(content: RecordDict, _: int) -> None:
        raise MemoryError("no room for two experts")

    _, rounds = run(tmp_path, settings_of(), lying(change, liars=[3]))
    assert "no room for two experts" in rounds[1]["rejected"]["client-3"]
    assert rounds[-1]["client_global"] is not None


def test_a_second_reply_of_the_same_client_is_not_merged() -> None:
    config = settings_of()
    strategy = strategy_of(config)
    grid = InlineGrid(client_app, CLIENTS, config)
    loop = RoundLoop(strategy)
    replies = grid.send_and_receive(loop.open(1, grid))
    for reply in [*replies, replies[0]]:
        loop.accept(reply)
    record = loop.close()
    assert sum(record.load) == 2 * CLIENTS
    assert list(record.rejected.values()) == ["was not asked"]


def test_a_late_reply_of_another_round_is_not_merged() -> None:
    config = settings_of()
    strategy = strategy_of(config)
    grid = InlineGrid(client_app, CLIENTS, config)
    loop = RoundLoop(strategy)
    late, *replies = grid.send_and_receive(loop.open(1, grid))
    for reply in replies:
        loop.accept(reply)
    assert loop.close().rejected == {"client-0": "no reply in time"}
    loop.open(2, grid)
    loop.accept(late)
    assert loop.close().load == [0, 0, 0, 0]


def test_no_client_is_a_clear_error() -> None:
    config = settings_of(**{"round-deadline": 0.1})
    with pytest.raises(RuntimeError, match="no client can take part"):
        RoundLoop(strategy_of(config)).open(1, InlineGrid(client_app, 0, config))


@pytest.mark.parametrize(
    ("plan", "shape"),
    [
        (None, "()"),
        (Plan(assignment=np.ones((1, 4), dtype=bool)), "(1, 4)"),
        (Plan(assignment=np.ones((CLIENTS, 3), dtype=bool)), f"({CLIENTS}, 3)"),
        (Plan(assignment=[[True] * 4] * CLIENTS), f"({CLIENTS}, 4)"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_plan_is_refused_with_its_shape(
    plan: Any, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings_of()
    strategy = strategy_of(config)
    monkeypatch.setattr(strategy, "plan", lambda _: plan)
    said = (
        f"'flex-moe': it plans an assignment of shape {shape}: expected an array of sha"
    )
    with pytest.raises(RunError, match=re.escape(said)):
        RoundLoop(strategy).open(1, InlineGrid(client_app, CLIENTS, config))
