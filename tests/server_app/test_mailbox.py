"""Errors that others answer in a client's place, and messages Flower does not take."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from common.inline_grid import InlineGrid
from server_app import restarts
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
    """Node 6 came back at a time, 7 long ago, and of 8 nothing is known.

    Answers nothing before somebody was asked again; then the messages of before in one
    way and the new ones in another.
    """

    def __init__(self, back: float, before: str, after: str) -> None:
        super().__init__(ClientApp(), 9, {})
        self.back = datetime.fromtimestamp(back, UTC).isoformat()
        self.ways = before, after
        self.pushed: list[list[Message]] = []

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(node_id=6, last_activated_at=self.back),
            NodeInfo(node_id=7, last_activated_at="2026-01-01T00:00:00+00:00"),
            NodeInfo(node_id=8),
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        self.pushed.append(list(messages))
        return super().push_messages(self.pushed[-1])

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        asked = set(message_ids)
        replies = []
        if len(self.pushed) == 2:
            for way, pushed in zip(self.ways, self.pushed, strict=True):
                for message in pushed:
                    if way == "nothing" or message.metadata.message_id not in asked:
                        continue
                    content = Error(5, "offline") if way == "error" else RecordDict()
                    replies.append(Message(content, reply_to=message))
        return replies


def exchanged(
    monkeypatch: pytest.MonkeyPatch, grid: RestartedGrid, nodes: list[int]
) -> list[Message]:
    monkeypatch.setattr(restarts, "LOOK_SECONDS", 0.0)
    return list(
        Mailbox().exchange(grid, messages(nodes), 0.5, lambda node: messages([node])[0])
    )


@pytest.mark.parametrize("before", ["nothing", "error"])
def test_a_device_that_was_started_again_is_asked_again(
    before: str, task_identity: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = RestartedGrid(time.time() + 1, before, "reply")
    [reply] = exchanged(monkeypatch, grid, [6])
    _, [second] = grid.pushed
    assert second.metadata.dst_node_id == 6
    assert reply.metadata.reply_to_message_id == second.metadata.message_id


def test_whichever_reply_of_a_device_comes_first_counts(
    task_identity: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = RestartedGrid(time.time() + 1, "reply", "nothing")
    [reply] = exchanged(monkeypatch, grid, [6])
    [first] = grid.pushed[0]
    assert reply.metadata.reply_to_message_id == first.metadata.message_id


@pytest.mark.parametrize("ago", [60, -1])
def test_only_a_device_that_came_back_is_asked_again(
    ago: float, task_identity: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = RestartedGrid(time.time() - ago, "nothing", "nothing")
    assert not exchanged(monkeypatch, grid, [6, 7, 8])
    asked = [[m.metadata.dst_node_id for m in pushed] for pushed in grid.pushed]
    # Once for one return, whatever the clocks say.
    assert asked == ([[6, 7, 8]] if ago > 0 else [[6, 7, 8], [6]])
