"""Parts that move one by one: all fresh is a synchronous round; buffers are state."""

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import SettingsError
from common.settings import Settings
from tests.server_app.rounds.timed import TimedRun, merged_of
from tests.whole_runs import rounds_of

BUFFERED: dict[str, Any] = {"schedule": "buffered", "late_replies": "drop"}


def model_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("strategy", ["flex-moe", "fedavg", "kin"])
def test_where_all_is_fresh_it_is_the_synchronous_round(
    tmp_path: Path, strategy: str, share: float
) -> None:
    rules: dict[str, Any] = {"clients": 6, "num_experts": 4, "strategy": strategy}
    rules |= {"num_rounds": 3}
    usual = TimedRun(tmp_path / "usual", {}, late_replies="drop", **rules)()
    run = TimedRun(tmp_path / "run", {}, buffer_share=share, **BUFFERED, **rules)
    buffered = run()
    assert model_of(buffered) == model_of(usual)
    for line, other in zip(rounds_of(buffered), rounds_of(usual), strict=True):
        different = {k for k in line if line[k] != other[k]}
        assert different <= {"seconds", "ended", "clients", "solver"}
        assert merged_of(line) == merged_of(other)


def test_a_round_ends_with_its_share_and_whoever_is_idle_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow = {2: [2.5, 1.0], 3: [30.0]}
    run = TimedRun(
        tmp_path, slow, clients=4, buffer_share=0.5, num_rounds=5, **BUFFERED
    )
    # Half of four end a round: at 1 s, 2 s; at 3 s clients 0 and 1, and 2 since 2.5 s.
    assert [merged_of(line) for line in rounds_of(run())] == [
        {"client-0": 1, "client-1": 1},
        {"client-0": 2, "client-1": 2},
        {"client-0": 3, "client-1": 3, "client-2": 1},
        {"client-0": 4, "client-1": 4, "client-2": 4},
        {"client-0": 5, "client-1": 5, "client-2": 5},
    ]
    assert [at for client, at in run.asked if client == 3] == [1]
    assert "the run is over: client-3 still at work" in caplog.text


def watch_models(found: list[dict[str, Any]]) -> Any:
    def watch(loop: Any) -> None:
        close = loop.close
        found.append(dict(loop.strategy.model))

        def closing(*given: Any) -> Any:
            record = close(*given)
            found.append(dict(loop.strategy.model))
            return record

        loop.close = closing

    return watch


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {part for part in before if not np.array_equal(before[part], after[part])}


def test_a_part_waits_for_its_holders_while_others_move(tmp_path: Path) -> None:
    """Two experts, held by 0 and 1, and by 2 and 3; 3 of 4 replies end a round."""
    found: list[dict[str, Any]] = []
    run = TimedRun(
        tmp_path,
        {3: [2.0]},
        clients=4,
        buffer_share=0.7,
        num_rounds=1,
        strategy="round-robin",
        **BUFFERED,
    )
    [line] = rounds_of(run(watch_models(found)))
    assert len(merged_of(line)) == 3
    held = {c["client"]: c["experts"][0] for c in line["clients"]}
    waits = f"expert.{held['client-3']}"
    # ceil(0.7 * 4) = 3 of psi have come; of the expert that client 3 holds one of two.
    assert moved(*found) == {"extractor", "expert.0", "expert.1"} - {waits}


class CutError(Exception):
    pass


@pytest.mark.parametrize("merging", ["mean", "median"])
def test_buffers_survive_the_server(tmp_path: Path, merging: str) -> None:
    rules: dict[str, Any] = {
        "clients": 4,
        "buffer_share": 0.7,
        "strategy": "round-robin",
        "merging": merging,
        "state_dir": str(tmp_path / "gates"),
        **BUFFERED,
    }

    def cut(loop: Any) -> None:
        close = loop.close

        def closing(*given: Any) -> Any:
            close(*given)
            kept.append(deepcopy(loop.strategy.sums.state()))
            raise CutError

        loop.close = closing

    kept: list[Any] = []
    with pytest.raises(CutError):
        TimedRun(tmp_path, {3: [2.0]}, **rules)(cut)
    [folder] = [path.parent for path in tmp_path.glob("*/run.json")]
    [waiting] = kept[0]
    assert waiting.startswith("expert.") and kept[0][waiting]["replies"] == 1

    restored: list[Any] = []

    def look(loop: Any) -> None:
        attach = loop.attach

        def attaching(*given: Any) -> None:
            attach(*given)
            restored.append(deepcopy(loop.strategy.sums.state()))

        loop.attach = attaching

    run = TimedRun(tmp_path, {}, resume_from=str(folder), **rules)
    lines = rounds_of(run(look))
    assert restored[0].keys() == kept[0].keys()
    np.testing.assert_equal(restored[0], kept[0])
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    # Client 3 is asked anew, and its old reply is nobody's.
    assert merged_of(lines[1])["client-3"] == 2


def test_a_buffered_run_is_replayed(tmp_path: Path) -> None:
    slow = {0: [1.0, 9.0, 1.0, 5.0], 1: [4.0, 2.0], 3: [30.0], 4: [7.0, 1.0, 11.0]}
    rules: dict[str, Any] = {"clients": 5, "num_experts": 3, "num_rounds": 10}
    rules |= {"buffer_share": 0.4, **BUFFERED}
    log = TimedRun(tmp_path / "log", slow, **rules)()
    again = TimedRun(tmp_path / "again", {}, replay_arrivals=str(log), **rules)()
    assert model_of(again) == model_of(log)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"min-replies": 2}, "min-replies = 2"),
        ({"over-selection": 0.5, "clients-per-round": 4}, "over-selection = 0.5"),
    ],
)
def test_what_buffers_decide_is_not_said_twice(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=rf"{named} is not allowed with schedule"):
        Settings.from_run_config({"schedule": "buffered", **changes})


def test_who_merges_a_round_together_has_no_buffers(tmp_path: Path) -> None:
    run = TimedRun(tmp_path, {}, strategy="flwr:FedAvg", **BUFFERED)
    with pytest.raises(SettingsError, match=r"schedule = 'buffered' is not allowed"):
        run()
