"""A SuperNode whose answers get lost, or whose run ends, over a transport that cuts."""

import http.server
import inspect
import itertools
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.exit import ExitCode
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPushError,
    push_objects,
)
from flwr.supercore.object_store import ObjectStore, ObjectStoreFactory
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import Run
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from client_app.device import flower_supernode, transfers
from client_app.device.flower_program import START_ANEW
from client_app.device.flower_supernode import PatientFleetClient
from client_app.device.supernode import NOT_ACTIVATED
from common.flower_internals import telling_exit
from server_app.launcher.processes import Sandbox
from server_app.launcher.superlink import flower_environment
from tests.ports import free_port


class SuperLink:
    """Stores each object once, as 1.41 does, and loses the answers it is told to."""

    def __init__(self, lost: set[int]) -> None:
        self.pending: set[str] = set()
        self.stored: dict[str, bytes] = {}
        self.refuses = False
        self._lost, self._asked = lost, itertools.count(1)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("push-messages"):
            told = PushMessagesRequest.FromString(request.content)
            [tree] = told.message_object_trees
            self.pending = {each.object_id for each in iterate_object_tree(tree)}
            answer: Any = PushMessagesResponse(
                objects_to_push=sorted(self.pending), session_id="s"
            )
            return httpx.Response(200, content=answer.SerializeToString())
        sent = PushObjectRequest.FromString(request.content)
        stored = sent.object_id in self.pending and not self.refuses
        if stored:
            self.pending.remove(sent.object_id)
            self.stored[sent.object_id] = sent.object_content
        if next(self._asked) in self._lost:
            raise httpx.ReadTimeout("the link is gone")
        answer = PushObjectResponse(stored=stored)
        return httpx.Response(200, content=answer.SerializeToString())


def push(kind: type[FleetHttpClient], link: SuperLink) -> dict[str, bytes]:
    """Push a reply of three arrays as a SuperNode does; return its objects."""
    arrays = {f"a{n}": Array(np.full(50_000, n, np.float32)) for n in range(3)}
    order = Message(RecordDict(), 7, "train")
    order.metadata.__dict__["_message_id"] = "order"
    reply = Message(RecordDict({"arrays": ArrayRecord(arrays)}), reply_to=order)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    objects = get_all_nested_objects(reply)
    expected = {key: item.deflate() for key, item in objects.items()}
    client = kind("https://superlink")
    client._client = httpx.Client(transport=httpx.MockTransport(link))
    retrying = make_simple_http_retry_invoker()
    retrying.wait_function = lambda _: None
    told = client.PushMessages(
        PushMessagesRequest(
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
        )
    )
    push_objects(
        objects,
        make_push_object_fn_protobuf(
            lambda request: retrying.invoke(client.PushObject, request),
            Node(node_id=7),
            1,
            told.session_id,
        ),
        object_ids_to_push=set(told.objects_to_push),
        max_concurrent_pushes=1,
    )
    return expected


@pytest.mark.usefixtures("task_identity")
def test_flower_loses_a_reply_with_the_answer_to_one_piece() -> None:
    # The reason for the module: should Flower try on one day, it can go.
    with pytest.raises(ObjectPushError):
        push(FleetHttpClient, SuperLink({2}))


@pytest.mark.usefixtures("task_identity")
@pytest.mark.parametrize("lost", [{1}, {2}, {2, 3}, {1, 3, 4, 6}])
def test_a_lost_answer_costs_nothing(lost: set[int]) -> None:
    link = SuperLink(lost)
    assert push(PatientFleetClient, link) == link.stored


@pytest.mark.usefixtures("task_identity")
def test_a_session_that_has_ended_is_no_success() -> None:
    link = SuperLink({1})
    link.refuses = True
    with pytest.raises(ObjectPushError):
        push(PatientFleetClient, link)
    assert not link.stored


def pull(kind: type[FleetHttpClient], answered: int) -> tuple[NodeState, ObjectStore]:
    """Fetch an order as a SuperNode does, whose run ends after so many answers.

    Returns what the SuperNode remembers.
    """
    arrays = {f"a{n}": Array(np.full(50_000, n, np.float32)) for n in range(3)}
    order = Message(RecordDict({"arrays": ArrayRecord(arrays)}), 7, "train")
    order.metadata.__dict__["_run_id"] = 1
    order.metadata.__dict__["_message_id"] = order.object_id
    contents = {k: o.deflate() for k, o in get_all_nested_objects(order).items()}
    asked = itertools.count()

    def link(request: httpx.Request) -> httpx.Response:
        if next(asked) >= answered:
            return httpx.Response(403, json={})
        answer: Any = ConfirmMessageReceivedResponse()
        if request.url.path.endswith("pull-object"):
            wanted = PullObjectRequest.FromString(request.content).object_id
            content = contents[wanted]
            answer = PullObjectResponse(
                object_found=True, object_available=True, object_content=content
            )
        return httpx.Response(200, content=answer.SerializeToString())

    client = kind("https://superlink")
    client._client = httpx.Client(transport=httpx.MockTransport(link))
    retrying, node = make_simple_http_retry_invoker(), Node(node_id=7)
    factory = ObjectStoreFactory()
    state, store = NodeStateFactory(factory).state(), factory.store()
    state.store_run(Run.create_empty(1))
    start_client_internal._pull_and_store_message(
        state,
        store,
        {},
        lambda: (remove_content_from_message(order), get_object_tree(order)),
        get_run=NotImplemented,
        get_fab=NotImplemented,
        pull_object=lambda run, key: make_pull_object_fn_protobuf(
            lambda request: retrying.invoke(client.PullObject, request), node, run
        )(key),
        confirm_message_received=lambda run, key: (
            make_confirm_message_received_fn_protobuf(
                lambda request: retrying.invoke(client.ConfirmMessageReceived, request),
                node,
                run,
            )(key)
        ),
        trusted_entities=None,
    )
    return state, store


OBJECTS = 9  # of the order: itself, two records, three arrays of a piece each


@pytest.mark.usefixtures("task_identity")
def test_flower_leaves_a_process_waiting_for_an_order_that_was_withdrawn() -> None:
    # The reason for the rest of the module, as above.
    state, _ = pull(FleetHttpClient, answered=2)
    [task] = state.get_tasks()
    assert task.status.status == "pending"


@pytest.mark.usefixtures("task_identity")
@pytest.mark.parametrize("answered", [0, 2, OBJECTS - 1, OBJECTS])
def test_an_order_that_was_withdrawn_is_given_up(answered: int) -> None:
    state, store = pull(PatientFleetClient, answered)
    [task] = state.get_tasks()
    assert (task.status.status, task.status.sub_status) == ("finished", "failed")
    assert task.status.details.endswith("its run has ended")
    assert not state.get_messages_legacy()
    assert len(store) == 0


@pytest.mark.usefixtures("task_identity")
def test_an_order_that_has_come_whole_is_kept() -> None:
    state, store = pull(PatientFleetClient, OBJECTS + 1)
    [task] = state.get_tasks()
    assert task.status.status == "pending"
    assert len(state.get_messages_legacy()) == 1
    assert len(store) == OBJECTS


@pytest.mark.usefixtures("task_identity")
def test_the_log_tells_how_far_a_reply_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(flower_supernode, "flower_log", said.append)
    monkeypatch.setattr(transfers, "QUIET_SECONDS", 0.0)
    push(PatientFleetClient, SuperLink(set()))
    first, second, third = said
    assert first.startswith("uploading 0.2 of 0.6 MB, ")
    assert second.startswith("uploading 0.4 of 0.6 MB, ")
    assert third.startswith("uploaded 0.6 MB in ")


@pytest.mark.parametrize(("code", "left"), [(305, NOT_ACTIVATED), (300, 44), (0, 0)])
def test_an_exit_of_flower_says_why(code: int, left: int) -> None:
    """Flower says 1 for each: who waits for it would not know that it may try again."""

    def flwr_exit(code: int, *_: Any, **__: Any) -> NoReturn:
        # As Flower's, which also starts a thread that ends this process for good.
        sys.exit(1 if not 0 <= code < 100 else 0)

    with pytest.raises(SystemExit) as ended:
        telling_exit(flwr_exit)(code, "why", emit_telemetry=False)
    assert ended.value.code == left


def test_flower_ends_where_it_is_listened_to() -> None:
    for module in (fleet_http_connection, start_client_internal):
        assert "sys_exit_code" in inspect.getsource(module.flwr_exit)
    assert ExitCode.SUPERNODE_CONNECTION_ERROR % 256 == NOT_ACTIVATED


class Failing(http.server.BaseHTTPRequestHandler):
    """A SuperLink that takes a device on, and fails when it asks for an order."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        question = self.path.rpartition("/")[2]
        self.asked.append(question)
        body = ActivateNodeResponse(node_id=7).SerializeToString()
        if question == "send-node-heartbeat":
            body = SendNodeHeartbeatResponse(success=True).SerializeToString()
        self.send_response_only(500 if question == "pull-messages" else 200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_supernode_whose_work_an_error_has_ended_ends(tmp_path: Path) -> None:
    """Flower's stays as a process that does nothing, and nobody starts it anew."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        module = [sys.executable, "-m", "client_app.device.flower_supernode"]
        where = ["--superlink", f"127.0.0.1:{httpd.server_port}", "--insecure"]
        with Sandbox(flower_environment()) as sandbox:
            command = [*module, *where, "--port", str(free_port())]
            with (tmp_path / "log").open("w") as log:
                process = sandbox.start(command, log.fileno())
                code = process.wait(timeout=600)
        httpd.shutdown()
    assert code == START_ANEW, (tmp_path / "log").read_text()
    assert "500" in (tmp_path / "log").read_text()
    assert "deactivate-node" in Failing.asked
