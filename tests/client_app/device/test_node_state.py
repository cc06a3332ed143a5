"""An order whose process is gone has failed, however that came; no other has."""

import sys
from datetime import timedelta

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import in_memory_nodestate

from client_app.device.node_state import FailingNodeState
from client_app.device.superexec import SUPEREXEC, SuperExec, SuperExecEndedError

pytestmark = pytest.mark.usefixtures("task_identity")

FlowerNodeState = in_memory_nodestate.InMemoryNodeState
RUN = 5
CRASHED = "ClientApp stopped responding."


def message(content: RecordDict, reply_to: Message | None = None) -> Message:
    made = (
        Message(content, 7, "train")
        if reply_to is None
        else Message(content, reply_to=reply_to)
    )
    made.metadata.__dict__["_run_id"] = RUN
    made.metadata.__dict__["_message_id"] = made.object_id
    return made


class Order:
    """One order, and the process that works on it.

    Parameters
    ----------
    kind : type
        Of the state of the SuperNode.
    """

    def __init__(self, kind: type[FlowerNodeState] = FailingNodeState) -> None:
        self.state = kind(ObjectStoreFactory().store())
        self.state.set_node_id(7)
        task = self.state.create_task("flwr-clientapp", RUN)
        assert task is not None
        self.task = task
        self.order = message(RecordDict())
        self.state.store_message(self.order)

    def start(self) -> None:
        assert self.state.claim_task(self.task) is not None
        assert self.state.activate_task(self.task)

    def take(self) -> None:
        assert self.state.get_messages_legacy(run_ids=[RUN], is_reply=False, limit=1)

    def reply(self, objects: int | None = None) -> Message:
        """Hand a reply over, so many of its objects or all."""
        content = RecordDict({"a": ArrayRecord({"x": Array(np.zeros(3))})})
        reply = message(content, self.order)
        tree: ObjectTree = get_object_tree(reply)
        session = self.state.start_session(RUN)
        self.state.store_message_and_object_tree(reply, tree, session)
        for key, each in [*get_all_nested_objects(reply).items()][:objects]:
            assert self.state.store_object(RUN, session, key, each.deflate())
        return reply

    def finish(self, how: str) -> None:
        assert self.state.finish_task(self.task, how, "")

    def vanish(self) -> None:
        """Not to be heard of any more."""
        self.state.task_token_store[self.task].active_until = now() - timedelta(1)

    def replies(self) -> list[str | None]:
        """Return what the SuperNode would send: reasons of errors, None for a reply."""
        found = self.state.get_messages_legacy(is_reply=True)
        return [each.error.reason if each.has_error() else None for each in found]


@pytest.mark.parametrize("kind", [FlowerNodeState, FailingNodeState])
@pytest.mark.parametrize(
    ("taken", "end", "flower_sees_it"),
    [
        (True, "vanish", True),
        (False, "vanish", False),
        (True, "failed", False),
        (False, "failed", False),
        (True, "stopped", False),
        (True, "completed", False),
    ],
)
def test_a_process_that_is_gone_without_a_reply(
    kind: type[FlowerNodeState], taken: bool, end: str, flower_sees_it: bool
) -> None:
    order = Order(kind)
    order.start()
    if taken:
        order.take()
    assert order.replies() == []
    if end == "vanish":
        order.vanish()
    else:
        order.finish(end)
    sees = kind is FailingNodeState or flower_sees_it
    assert order.replies() == ([CRASHED] if sees else [])
    assert order.replies() == []  # once


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_a_process_that_is_gone_while_it_hands_its_reply_over(objects: int) -> None:
    order = Order()
    order.start()
    order.take()
    order.reply(objects)
    assert order.replies() == []  # more may come
    order.vanish()
    assert order.replies() == [CRASHED]


def test_flower_would_send_what_is_not_there() -> None:
    # The reason for the test above: it would wait for the rest for ever.
    order = Order(FlowerNodeState)
    order.start()
    order.take()
    order.reply(1)
    assert order.replies() == [None]


@pytest.mark.parametrize("end", ["", "completed", "failed"])
def test_a_reply_that_is_whole_is_sent_at_once_and_alone(end: str) -> None:
    order = Order()
    order.start()
    order.take()
    order.reply()
    if end:
        order.finish(end)
    assert order.replies() == [None]
    assert order.replies() == []


def test_who_has_not_begun_is_waited_for() -> None:
    order = Order()
    assert order.replies() == []
    order.start()
    assert order.replies() == []


def test_one_that_never_began_is_started_again() -> None:
    # Flower's doing; then it is no loss.
    order = Order()
    assert order.state.claim_task(order.task) is not None
    order.vanish()
    assert order.replies() == []
    assert [task.status.status for task in order.state.get_tasks()] == ["pending"]


def test_without_its_superexec_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = SuperExec()
    mine.check()  # it may be somebody else's
    process = mine.start([sys.executable, "-c", "import time; time.sleep(600)"])
    mine.check()
    process.kill()
    process.wait()
    with pytest.raises(SuperExecEndedError):
        mine.check()
    monkeypatch.setattr(SUPEREXEC, "_process", process)
    with pytest.raises(SuperExecEndedError):
        Order().replies()
