"""Errors that others answer in a client's place, and messages Flower does not take."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from common.inline_grid import InlineGrid
from server_app import mailbox
from server_app.mailbox import Mailbox, WorkerLostError


class ErrorGrid(InlineGrid):
    """Answers every message with an error of the SuperLink, node 1, of no round."""

    def __init__(self, reason: str, taken: int = 9) -> None:
        super().__init__(ClientApp(), 9, {})
        self.reason, self.taken = reason, taken

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


def test_a_dead_worker_ends_the_run_loudly(task_identity: None) -> None:
    grid = ErrorGrid("ray.exceptions.ActorDiedError: killed")
    with pytest.raises(WorkerLostError, match="does not replace it"):
        list(Mailbox().exchange(grid, messages([6]), 5))


class RestartedGrid(InlineGrid):
    """Node 6 was started again after it had fetched its first message."""

    def __init__(self, restarted: float) -> None:
        super().__init__(ClientApp(), 9, {})
        self.restarted = datetime.fromtimestamp(restarted, UTC).isoformat()
        self.pushed: list[Message] = []

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(node_id=6, last_activated_at=self.restarted),
            NodeInfo(node_id=7, last_activated_at="2026-01-01T00:00:00+00:00"),
            NodeInfo(node_id=8),
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = list(messages)
        self.pushed += pushed
        return super().push_messages(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        asked = set(message_ids)
        # The first of each node is lost; what comes after all three is answered.
        return [
            Message(RecordDict(), reply_to=message)
            for message in self.pushed[3:]
            if message.metadata.message_id in asked
        ]


def ask_6_anew(node: int) -> Message | None:
    assert node == 6
    [message] = messages([6])
    return message


def test_a_device_that_was_started_again_is_asked_again(
    task_identity: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "RESTART_SECONDS", 0.0)
    grid = RestartedGrid(restarted=time.time() + 1)
    replies = list(Mailbox().exchange(grid, messages([6, 7, 8]), 0.5, ask_6_anew))
    assert [reply.metadata.src_node_id for reply in replies] == [6]
    assert len(grid.pushed) == 4


def test_a_device_that_was_there_all_the_time_is_waited_for(
    task_identity: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "RESTART_SECONDS", 0.0)
    grid = RestartedGrid(restarted=time.time() - 60)
    assert not list(Mailbox().exchange(grid, messages([6, 7, 8]), 0.5, ask_6_anew))
    assert len(grid.pushed) == 3
