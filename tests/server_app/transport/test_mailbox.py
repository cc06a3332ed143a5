"""Errors that others answer in a client's place; how often replies are looked for."""

import math
from collections.abc import Iterable

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from common.inline_grid import InlineGrid
from server_app.transport import mailbox
from server_app.transport.mailbox import Mailbox, WorkerLostError, pause


class ErrorGrid(InlineGrid):
    """Answers every message with an error of the SuperLink, node 1, of no round."""

    def __init__(self, reason: str, taken: int = 9, heartbeat: float = 30) -> None:
        super().__init__(ClientApp(), 9, {})
        self.reason, self.taken, self.heartbeat = reason, taken, heartbeat

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(node_id=node, heartbeat_interval=self.heartbeat)
            for node in self.contexts
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return super().push_messages(messages)[: self.taken]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = []
        for message_id in message_ids:
            if (message := self._pending.pop(message_id, None)) is None:
                continue
            foreign = Message(RecordDict(), 1, "train", group_id="")
            foreign.metadata.__dict__["_message_id"] = message_id
            reply = Message(Error(5, self.reason), reply_to=foreign)
            assert reply.metadata.src_node_id != message.metadata.dst_node_id
            replies.append(reply)
        return replies


class Time:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


class LongAtWork(InlineGrid):
    """Has each reply when it is time, and counts how often it is looked for."""

    def __init__(self, clock: Time, ready: dict[int, float]) -> None:
        super().__init__(ClientApp(), 9, {})
        self.clock, self.ready, self.looks = clock, ready, 0

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.looks += 1
        done = [
            each
            for each in message_ids
            if self.clock.now >= self.ready[self._pending[each].metadata.dst_node_id]
        ]
        return [
            Message(RecordDict(), reply_to=self._pending.pop(each)) for each in done
        ]


def messages(nodes: list[int]) -> list[Message]:
    return [Message(RecordDict(), node, "train", group_id="4") for node in nodes]


def test_an_error_names_the_client_it_is_about(task_identity: None) -> None:
    replies = list(Mailbox().exchange(ErrorGrid("offline"), messages([6, 7]), 5))
    assert sorted(r.metadata.src_node_id for r in replies) == [6, 7]
    assert {r.metadata.group_id for r in replies} == {"4"}


def test_a_message_that_was_not_taken_is_answered_at_once(task_identity: None) -> None:
    replies = list(
        Mailbox().exchange(ErrorGrid("offline", taken=1), messages([6, 7]), 5)
    )
    reasons = {r.metadata.src_node_id: r.error.reason for r in replies}
    assert reasons == {6: "offline", 7: "not sent"}


@pytest.mark.parametrize("error", ["ActorDiedError", "ActorUnavailableError"])
def test_a_dead_worker_ends_the_run_loudly(error: str, task_identity: None) -> None:
    grid = ErrorGrid(f"ray.exceptions.{error}: killed", heartbeat=math.inf)
    with pytest.raises(WorkerLostError, match="does not replace it"):
        list(Mailbox().exchange(grid, messages([6]), 5))


@pytest.mark.parametrize("heartbeat", [30, 1800, 0])
def test_a_device_that_says_a_worker_died_is_not_believed(
    heartbeat: float, task_identity: None
) -> None:
    reason = "ray.exceptions.ActorDiedError: boo"
    [reply] = Mailbox().exchange(
        ErrorGrid(reason, heartbeat=heartbeat), messages([6]), 5
    )
    assert reply.error.reason == reason


@pytest.mark.parametrize(
    ("quiet", "left", "seconds"),
    [
        (0, math.inf, 0.1),
        (5, math.inf, 0.1),
        (50, math.inf, 1.0),
        (1000, math.inf, 2.0),
        (1000, 0.5, 0.5),  # nobody is waited for beyond the deadline
        (1000, 0.0, 0.1),
    ],
)
def test_a_pause_is_a_share_of_the_time_without_a_reply(
    quiet: float, left: float, seconds: float
) -> None:
    assert pause(quiet, left) == pytest.approx(seconds)


def test_a_reply_that_takes_long_is_looked_for_rarely_and_noticed_soon(
    monkeypatch: pytest.MonkeyPatch, task_identity: None
) -> None:
    clock = Time()
    monkeypatch.setattr(mailbox, "time", clock)
    grid = LongAtWork(clock, {6: 3.0, 7: 600.0, 8: 9999.0})
    came = {
        reply.metadata.src_node_id: clock.now
        for reply in Mailbox(clock).exchange(grid, messages([6, 7, 8]), 1000)
    }
    assert came == {6: pytest.approx(3.0, abs=0.11), 7: pytest.approx(600, abs=2.01)}
    assert clock.now == pytest.approx(1000, abs=0.21)
    # Ten times a second were 10 000.
    assert grid.looks < 1000
