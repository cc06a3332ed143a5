"""Errors that others answer in a client's place, and messages Flower does not take."""

import math
from collections.abc import Iterable

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from common.inline_grid import InlineGrid
from server_app.transport.mailbox import Mailbox, WorkerLostError


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
    grid = ErrorGrid("ray.exceptions.ActorDiedError: killed", heartbeat=math.inf)
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
