"""Replies over HTTP: what is too large is not read, what cannot be read is an error."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from server_app.transport import pulling
from server_app.transport.retrying_grid import PatientGrid, arriving

MOST = 100_000


class Body(httpx.SyncByteStream):
    """An answer's bytes, and how many of them were read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.read_bytes = data, 0

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), 1 << 16):
            piece = self.data[start : start + (1 << 16)]
            self.read_bytes += len(piece)
            yield piece


class SuperLink:
    """What a ServerApp sees of one: listings, objects, and what was received."""

    def __init__(self) -> None:
        self.replies: list[tuple[Message, ObjectTree]] = []
        self.objects: dict[str, bytes] = {}
        self.bodies: list[Body] = []
        self.received: list[str] = []
        self.sent = 0
        self.coming: set[str] = set()  # objects announced, and not there yet
        self.listed: list[str] = []

    def order(self, kind: str = "train", node: int = 7) -> Message:
        self.sent += 1
        order = Message(RecordDict(), node, kind, group_id="1")
        order.metadata.__dict__["_message_id"] = f"order-{self.sent}"
        return order

    def store(self, reply: Message, *, objects: bool = True) -> None:
        reply.metadata.__dict__["_message_id"] = reply.object_id
        if objects:
            for key, item in get_all_nested_objects(reply).items():
                self.objects[key] = item.deflate()
        self.replies.append((reply, get_object_tree(reply)))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        kind = request.url.path.rsplit("/", 1)[1]
        answer: Any
        answer = ConfirmMessageReceivedResponse()
        if kind == "pull-messages":
            wanted = set(PullAppMessagesRequest.FromString(request.content).message_ids)
            found = [
                (reply, tree)
                for reply, tree in self.replies
                if reply.metadata.reply_to_message_id in wanted
            ]
            self.listed += [r.metadata.reply_to_message_id for r, _ in found]
            answer = PullAppMessagesResponse(
                messages_list=[
                    message_to_proto(remove_content_from_message(m)) for m, _ in found
                ],
                message_object_trees=[tree for _, tree in found],
            )
        elif kind == "pull-object":
            wanted_id = PullObjectRequest.FromString(request.content).object_id
            content = self.objects.get(wanted_id)
            answer = PullObjectResponse(
                object_found=content is not None or wanted_id in self.coming,
                object_available=content is not None,
                object_content=content or b"",
            )
        else:
            about = ConfirmMessageReceivedRequest.FromString(request.content)
            self.received.append(about.message_object_id)
        data = answer.SerializeToString()
        body = Body(data)
        self.bodies.append(body)
        return httpx.Response(
            200, headers={"content-length": str(len(data))}, stream=body
        )


@pytest.fixture
def link(task_identity: None) -> SuperLink:
    return SuperLink()


def grid_to(link: SuperLink, *orders: Message) -> PatientGrid:
    grid = HttpGrid(runtime_api_address="superlink", insecure=True, token="token")
    grid.set_run(Run.create_empty(run_id=1))
    grid._runtime_client._client = httpx.Client(transport=httpx.MockTransport(link))
    patient = PatientGrid(grid, {"train": MOST, "query": 1_000})
    patient._types = {
        order.metadata.message_id: order.metadata.message_type for order in orders
    }
    return patient


def pulled(link: SuperLink, *orders: Message) -> list[Message]:
    grid = grid_to(link, *orders)
    return list(grid.pull_messages(list(grid._types)))


def content(size: int) -> RecordDict:
    vector = np.arange(size, dtype=np.float32)
    return RecordDict(
        {
            "arrays": ArrayRecord({"extractor": Array(vector)}),
            "report": ConfigRecord({"client": "pi-0"}),
        }
    )


def test_a_reply_arrives_as_it_was_sent(link: SuperLink) -> None:
    order = link.order()
    link.store(Message(content(5_000), reply_to=order))
    [reply] = pulled(link, order)
    assert reply.metadata.src_node_id == 7
    assert reply.metadata.reply_to_message_id == "order-1"
    vector = reply.content.array_records["arrays"]["extractor"].numpy()
    np.testing.assert_array_equal(vector, np.arange(5_000, dtype=np.float32))
    assert link.received == [reply.metadata.message_id]


@pytest.mark.parametrize(("kind", "size"), [("train", 5_000_000), ("query", 50_000)])
def test_a_reply_that_is_too_large_is_not_read(
    kind: str, size: int, link: SuperLink
) -> None:
    orders = [link.order(kind), link.order("train", node=8)]
    link.store(Message(content(size), reply_to=orders[0]))
    link.store(Message(content(5_000), reply_to=orders[1]))
    refused, honest = pulled(link, *orders)
    assert "reply of more than" in str(refused.error.reason)
    assert refused.metadata.src_node_id == 7
    assert honest.has_content()
    # The SuperLink keeps neither, and the large one's bytes stayed where they were.
    assert len(link.received) == 2
    assert sum(body.read_bytes for body in link.bodies) < MOST


def test_many_small_objects_are_too_large_as_well(link: SuperLink) -> None:
    order = link.order()
    records: dict[str, Any] = {f"r{n}": ConfigRecord({"n": n}) for n in range(3_000)}
    link.store(Message(RecordDict(records), reply_to=order))
    [reply] = pulled(link, order)
    assert "reply of more than" in str(reply.error.reason)


def test_one_chunk_named_a_thousand_times_is_too_large(link: SuperLink) -> None:
    order = link.order()
    sent = Message(content(20_000), reply_to=order)
    objects = get_all_nested_objects(sent)
    # What a device can push: an array that names its one chunk again and again.
    changed: dict[str, str] = {}
    for key, item in objects.items():
        data = item.deflate()
        for old, new in changed.items():
            data = data.replace(old.encode(), new.encode())
        head, _, body = data.partition(b"\0")
        if head.startswith(b"Array "):
            fields = json.loads(body)
            fields["arraychunk_ids"] = [0] * 1_000
            body = json.dumps(fields).encode()
        kind, children, _ = head.decode().split(" ")
        data = f"{kind} {children} {len(body)}".encode() + b"\0" + body
        changed[key] = get_object_id(data)
        link.objects[changed[key]] = data
    link.store(sent, objects=False)
    tree = link.replies[-1][1]

    def renamed(tree: ObjectTree) -> ObjectTree:
        children = [renamed(child) for child in tree.children]
        return ObjectTree(object_id=changed[tree.object_id], children=children)

    link.replies[-1] = (sent, renamed(tree))
    [reply] = pulled(link, order)
    assert "reply of more than" in str(reply.error.reason)


@pytest.mark.parametrize("data", [b"", b"Message  0\0", b"\xff\0", b"Array  2\0{}"])
def test_bytes_that_are_no_message_cost_their_sender_alone(
    data: bytes, link: SuperLink
) -> None:
    orders = [link.order(), link.order(node=8)]
    broken = Message(content(10), reply_to=orders[0])
    link.store(broken)
    link.store(Message(content(10), reply_to=orders[1]))
    link.objects[broken.metadata.message_id] = data or b"\0"
    refused, honest = pulled(link, *orders)
    assert str(refused.error.reason).startswith("reply cannot be read: ")
    assert honest.has_content()


def test_the_address_is_what_the_superlink_knows(link: SuperLink) -> None:
    orders = [link.order(), link.order(node=8)]
    forged = Message(content(10), reply_to=orders[1])
    link.store(forged)
    honest = Message(content(10), reply_to=orders[0])
    honest.metadata.__dict__["_message_id"] = forged.metadata.message_id
    link.replies[-1] = (honest, link.replies[-1][1])
    [reply] = pulled(link, *orders)
    assert reply.metadata.src_node_id == 7
    assert reply.metadata.reply_to_message_id == "order-1"


def test_errors_are_told_in_one_line(link: SuperLink) -> None:
    order = link.order()
    reason = "\x1b[2JOSError: no\nTraceback" + "x" * 10**6
    link.store(Message(Error(2, reason), reply_to=order))
    [reply] = pulled(link, order)
    assert (reply.error.code, reply.error.reason) == (2, "?[2JOSError: no")


def test_an_upload_that_did_not_finish_is_a_lost_message(link: SuperLink) -> None:
    order = link.order()
    link.store(Message(content(10), reply_to=order), objects=False)
    [reply] = pulled(link, order)
    assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert link.received == []


def test_a_reply_that_is_still_being_uploaded_keeps_nobody_waiting(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "LOOK_SECONDS", 0.0)
    slow, quick = link.order(), link.order(node=8)
    ids = [order.metadata.message_id for order in (slow, quick)]
    link.store(Message(content(10_000), reply_to=slow))
    # Announced, and the first object alone has come.
    uploaded, link.objects = link.objects, {}
    link.coming = set(uploaded)
    tree = link.replies[0][1]
    order_of_upload = [each.object_id for each in iterate_object_tree(tree)]
    link.store(Message(content(10), reply_to=quick))
    grid = grid_to(link, slow, quick)
    [reply] = grid.pull_messages(ids)
    assert reply.metadata.reply_to_message_id == quick.metadata.message_id
    assert arriving(grid) == {slow.metadata.message_id}
    for object_id in order_of_upload[:-1]:
        link.objects[object_id] = uploaded[object_id]
        assert not list(grid.pull_messages(ids[:1]))
    link.objects |= uploaded
    [reply] = grid.pull_messages(ids[:1])
    vector = reply.content.array_records["arrays"]["extractor"].numpy()
    np.testing.assert_array_equal(vector, np.arange(10_000, dtype=np.float32))
    assert arriving(grid) == set()
    # The SuperLink lists a reply once: who asks again is told that there is none.
    assert sorted(link.listed) == sorted(ids)


def test_an_upload_that_was_given_up_on_the_way_is_a_lost_message(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "LOOK_SECONDS", 0.0)
    order = link.order()
    link.store(Message(content(10), reply_to=order))
    link.coming, link.objects = set(link.objects), {}
    grid = grid_to(link, order)
    assert not list(grid.pull_messages([order.metadata.message_id]))
    link.coming = set()  # its session is over
    [reply] = grid.pull_messages([order.metadata.message_id])
    assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert arriving(grid) == set()
