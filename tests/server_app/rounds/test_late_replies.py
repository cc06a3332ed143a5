"""A reply that comes after its round is merged into the one under way, once."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from common.errors import SettingsError
from server_app.contract import Reply
from server_app.run_error import RunError
from tests.server_app.rounds.timed import TimedRun, merged_of
from tests.whole_runs import app_with, rounds_of

SLOW: Mapping[int, list[float]] = {2: [12.0]}
"""Client 2 answers its first order 2 s after the deadline of round 1."""


def test_a_late_reply_counts_once_in_the_round_that_is_open(tmp_path: Path) -> None:
    run = TimedRun(tmp_path, SLOW)
    lines = rounds_of(run())
    # Round 1 ends at its deadline, 10 s, round 2 when those it asked have answered,
    # 11 s. At 12 s all of round 3 answer, and client 2 its first order.
    assert [merged_of(line) for line in lines] == [
        {"client-0": 1, "client-1": 1},
        {"client-0": 2, "client-1": 2},
        {"client-0": 3, "client-1": 3, "client-2": 1},
        {"client-0": 4, "client-1": 4, "client-2": 4},
    ]
    # It was at work, and neither asked again nor a failure.
    assert [at for client, at in run.asked if client == 2] == [1, 4]
    assert [line["rejected"] for line in lines] == [{}] * 4
    assert [line["late"] for line in lines] == [0] * 4
    # Each holds one of two experts: a reply is one of the load, in its round.
    assert [sum(line["load"]) for line in lines] == [2, 2, 3, 3]
    slow = run.loop.fleet.clients[2]
    assert (slow.failures, slow.merged_round) == (0, 4)


def test_the_next_order_knows_which_upload_was_merged(tmp_path: Path) -> None:
    """What that one left out by quantising is kept under the round of its order."""
    merged: list[int] = []

    def note(loop: Any) -> None:
        close = loop.close

        def closing(*given: Any) -> Any:
            record = close(*given)
            merged.append(loop.fleet.clients[2].merged_round)
            return record

        loop.close = closing

    TimedRun(tmp_path, SLOW, upload_dtype="int8")(note)
    assert merged == [0, 0, 1, 4]


def test_a_reply_that_is_too_old_is_not_merged_and_its_client_asked_again(
    tmp_path: Path,
) -> None:
    run = TimedRun(tmp_path, {2: [13.0]}, max_staleness=1, num_rounds=5)
    lines = rounds_of(run())
    # Given up when round 3 begins, at 11 s; then it gets an order of its own.
    assert [at for client, at in run.asked if client == 2] == [1, 3, 4, 5]
    assert lines[2]["rejected"] == {"client-2": "no reply in 2 rounds"}
    assert [merged_of(line).get("client-2") for line in lines] == [None, None, 3, 4, 5]
    # The old one comes in round 4, and is counted and dropped.
    assert [line["late"] for line in lines] == [0, 0, 0, 1, 0]


def test_without_it_a_late_reply_is_dropped(tmp_path: Path) -> None:
    lines = rounds_of(TimedRun(tmp_path, SLOW, late_replies="drop")())
    assert lines[0]["rejected"] == {"client-2": "no reply in time"}
    assert all(set(merged_of(line).values()) == {line["round"]} for line in lines)
    assert sum(line["late"] for line in lines) == 1


def test_a_round_that_is_short_is_waited_on_and_nothing_is_asked_twice(
    tmp_path: Path,
) -> None:
    run = TimedRun(tmp_path, {0: [25.0], 2: [12.0]}, min_replies=2, num_rounds=2)
    first, second = rounds_of(run())
    # At 10 s there is one reply of two. At 12 s there are two; client 0 is still at
    # work, so that round 1 waits for it up to its second deadline, 20 s.
    assert merged_of(first) == {"client-1": 1, "client-2": 1}
    assert first["notes"] == ["waited on: 1 of at least 2 replies (no reply in time)"]
    assert merged_of(second) == {"client-1": 2, "client-2": 2}
    assert sorted(run.asked) == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2)]


def test_where_all_are_at_work_nobody_is_asked_and_a_late_reply_is_a_round(
    tmp_path: Path,
) -> None:
    slow = {0: [12.0, 1.0], 1: [13.0], 2: [14.0]}
    run = TimedRun(tmp_path, slow, short_round="skip")
    lines = rounds_of(run())
    assert [line["merged"] for line in lines] == [False, True, True, True]
    # Round 2 asks nobody and takes the first that comes.
    assert merged_of(lines[1]) == {"client-0": 1}
    assert not any(at == 2 for _, at in run.asked)
    assert merged_of(lines[2]) == {"client-0": 3, "client-1": 1}


def refusing(client: int, of_round: int) -> ClientApp:
    """Return the real ClientApp, of which one client fails in one round."""

    def train(message: Message, context: Context) -> Message:
        where = int(context.node_config["partition-id"])
        if (where, message.metadata.group_id) == (client, str(of_round)):
            raise OSError("killed")
        return client_app(message, context)

    return app_with(train=train)


def test_a_round_that_only_waits_needs_as_many_replies_as_any(tmp_path: Path) -> None:
    failed: set[int] = set()

    def train(message: Message, context: Context) -> Message:
        where = int(context.node_config["partition-id"])
        if where > 0 and where not in failed:
            failed.add(where)
            raise OSError("killed")
        return client_app(message, context)

    slow = {client: [12.0] for client in range(3)}
    run = TimedRun(
        tmp_path, slow, app=app_with(train=train), min_replies=2, num_rounds=1
    )
    [line] = rounds_of(run())
    # Nobody answers by 10 s. Then nobody is asked: all are at work, and at 12 s one
    # reply has come and two failures, nobody is out, and one of two is not enough.
    assert merged_of(line) == {"client-0": 1, "client-1": 1, "client-2": 1}
    assert [note.split(" (")[0] for note in line["notes"]] == [
        "waited on: 0 of at least 2 replies",
        "waited on: 1 of at least 2 replies",
    ]
    assert sorted(run.asked) == [(0, 1), (1, 1), (1, 1), (2, 1), (2, 1)]


def test_a_device_that_fails_late_is_free_again(tmp_path: Path) -> None:
    """As one that was killed while it worked on an order of before."""
    run = TimedRun(tmp_path, SLOW, app=refusing(2, 1))
    lines = rounds_of(run())
    assert "killed" in lines[2]["rejected"]["client-2"]
    assert [at for client, at in run.asked if client == 2] == [1, 4]
    assert merged_of(lines[3])["client-2"] == 4


def test_what_is_delivered_again_is_not_merged_again(tmp_path: Path) -> None:
    replies: list[Message] = []

    def twice(loop: Any) -> None:
        accept = loop._training.open

        def opening(*given: Any, **common: Any) -> Any:
            current, messages = accept(*given, **common)
            taken = current.accept

            def accepting(message: Message) -> None:
                taken(message)
                replies.append(message)
                for each in replies:  # all that ever came
                    taken(each)

            current.accept = accepting
            return current, messages

        loop._training.open = opening

    once = rounds_of(TimedRun(tmp_path / "once", SLOW)())
    again = rounds_of(TimedRun(tmp_path / "again", SLOW)(twice))
    assert [merged_of(line) for line in again] == [merged_of(line) for line in once]
    assert [line["load"] for line in again] == [line["load"] for line in once]
    assert all("was not asked" in line["rejected"].values() for line in again)


def model_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


UNEVEN: Mapping[int, list[float]] = {
    0: [3.0, 14.0, 2.0],
    1: [12.0, 1.0, 26.0],
    2: [21.0, 8.0],
    3: [1.0, 1.0, 35.0],
}


@pytest.mark.parametrize("strategy", ["flex-moe", "fedavg"])
def test_a_run_is_replayed_from_its_log_without_its_delays(
    tmp_path: Path, strategy: str
) -> None:
    rules: dict[str, Any] = {"clients": 4, "num_rounds": 8, "strategy": strategy}
    rules |= {"upload_dtype": "int8", "state_dir": str(tmp_path / "kept")}
    log = TimedRun(tmp_path / "log", UNEVEN, **rules)()
    stale = [
        line["round"] - at for line in rounds_of(log) for at in merged_of(line).values()
    ]
    assert max(stale) > 1
    again = TimedRun(tmp_path / "again", {}, replay_arrivals=str(log), **rules)
    replayed = again()
    assert model_of(replayed) == model_of(log)
    assert [merged_of(line) for line in rounds_of(replayed)] == [
        merged_of(line) for line in rounds_of(log)
    ]
    # Without the log they come otherwise, and make another model.
    fresh = TimedRun(tmp_path / "fresh", {}, **rules)()
    assert model_of(fresh) != model_of(log)


def test_a_replay_that_would_be_another_run_is_refused(tmp_path: Path) -> None:
    log = TimedRun(tmp_path / "log", SLOW, partition="iid")()
    other: dict[str, Any] = {"replay_arrivals": str(log), "partition": "iid"}
    with pytest.raises(RunError, match=r"round \d cannot be replayed: client-\d"):
        TimedRun(tmp_path / "a", {}, strategy="random", **other)()
    with pytest.raises(RunError, match=r"round 5 is not in the log"):
        TimedRun(tmp_path / "b", {}, num_rounds=5, **other)()
    with pytest.raises(SettingsError, match=r"replay-arrivals = .*no rounds"):
        TimedRun(tmp_path / "c", {}, replay_arrivals=str(tmp_path))()


def test_a_resumed_run_knows_no_orders_of_before(tmp_path: Path) -> None:
    """What the server had out when it died is asked anew, and counts once."""

    class Died(Exception):
        pass

    def dies(loop: Any) -> None:
        close = loop.close

        def closing(*given: Any) -> Any:
            record = close(*given)
            if record.round == 2:
                raise Died
            return record

        loop.close = closing

    first = TimedRun(tmp_path, SLOW)
    with pytest.raises(Died):
        first(dies)
    [folder] = [path.parent for path in tmp_path.glob("*/run.json")]
    second = TimedRun(tmp_path, {}, resume_from=str(folder))
    lines = rounds_of(second())
    assert [merged_of(line).get("client-2") for line in lines] == [None, None, 3, 4]
    assert second.asked[:3] == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("strategy", ["fed-moe", "flwr:FedAvg"])
def test_who_merges_a_round_together_says_so(tmp_path: Path, strategy: str) -> None:
    run = TimedRun(tmp_path, {}, strategy=strategy, reserved_samples=50)
    with pytest.raises(SettingsError, match=f"not allowed with strategy '{strategy}'"):
        run()


def test_what_was_trained_for_the_warm_up_is_nothing_after_it(tmp_path: Path) -> None:
    lines = rounds_of(TimedRun(tmp_path, SLOW, strategy="fedjets")())
    why = "trained the common expert, whose warm-up is over"
    assert lines[2]["rejected"] == {"client-2": why}


@pytest.mark.parametrize("strategy", ["kin", "hfedmoe", "ifca", "fedrolex"])
def test_every_other_takes_late_replies(
    tmp_path: Path, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    lines = rounds_of(TimedRun(tmp_path, SLOW, strategy=strategy)())
    assert merged_of(lines[2])["client-2"] == 1
    assert "cannot be merged" not in caplog.text


def test_a_stale_change_counts_by_its_age(tmp_path: Path) -> None:
    """Round 3 of FedAvg: two fresh changes, and one two versions old, by hand."""
    found: dict[int, tuple[list[Reply], Any, Any]] = {}

    def watch(loop: Any) -> None:
        strategy, replies = loop.strategy, []
        merge, finish = strategy.merge, strategy.finish

        def merging(reply: Reply) -> None:
            replies.append(reply)
            merge(reply)

        def finishing() -> None:
            before = strategy.model["extractor"]
            finish()
            number = loop.completed + 1
            found[number] = ([*replies], before, strategy.model["extractor"])
            replies.clear()

        strategy.merge, strategy.finish = merging, finishing

    TimedRun(tmp_path, SLOW, strategy="fedavg")(watch)
    replies, before, after = found[3]
    assert [reply.order.server_round for reply in replies] == [1, 3, 3]
    weights = [float(reply.report.num_examples) for reply in replies]
    changes = [reply.deltas["extractor"].astype(np.float64) for reply in replies]
    scaled = [changes[0] / np.sqrt(3), *changes[1:]]
    mean = sum(w * c for w, c in zip(weights, scaled, strict=True)) / sum(weights)
    np.testing.assert_allclose(after, before + mean, rtol=0, atol=1e-6)
    assert np.abs(after - before).max() > 1e-3


def test_what_lands_with_the_last_that_is_wanted_is_not_lost(tmp_path: Path) -> None:
    """Replies are fetched several at a time; one more than enough is one more."""
    run = TimedRun(
        tmp_path, {}, clients=6, clients_per_round=2, over_selection=1.0, num_rounds=3
    )
    lines = rounds_of(run())
    # Four are asked, two are wanted, and all four are there at once.
    assert [len(merged_of(line)) for line in lines] == [4, 4, 4]
    assert [line["late"] for line in lines] == [0, 0, 0]
