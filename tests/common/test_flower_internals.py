"""What we rely on of each name that Flower does not make public.

Another release of Flower is tried with this file first: what fails here has moved.
"""

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, Metadata, RecordDict
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.serverapp import Grid
from flwr.supernode import cli as supernode_cli
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.nodestate import nodestate_factory

from common import flower_internals as flower

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def message() -> Message:
    flower.TaskIdentity.task_id = flower.TaskIdentity.run_id = 1
    flower.TaskIdentity.node_id = 0
    array = Array(np.arange(3, dtype=np.float32))
    return Message(RecordDict({"a": ArrayRecord({"x": array})}), 7, "train")


def fields(request: Any) -> set[str]:
    return set(request.DESCRIPTOR.fields_by_name)


def objects_travel_one_by_one() -> None:
    sent = message()
    objects = flower.get_all_nested_objects(sent)
    contents = {key: item.deflate() for key, item in objects.items()}
    assert sent.object_id in contents
    heads = {
        flower.get_object_head_values_from_object_content(each)[0]
        for each in contents.values()
    }
    assert {"Message", "RecordDict", "ArrayRecord", "Array"} <= heads
    arrived: Any = flower.inflate_object_from_contents(sent.object_id, contents)
    values = arrived.content.array_records["a"]["x"].numpy()
    assert values.tolist() == [0, 1, 2]


def trees_name_their_objects() -> None:
    leaf = flower.ObjectTree(object_id="leaf")
    tree = flower.ObjectTree(object_id="root", children=[leaf, leaf])
    ids = [each.object_id for each in flower.iterate_object_tree(tree)]
    assert set(ids) == {"root", "leaf"}


def pulls_are_made_of_one_call_an_object() -> None:
    assert flower.pull_objects(["a", "b"], str.encode) == {"a": b"a", "b": b"b"}


def a_message_is_made_of_its_metadata() -> None:
    about = message().metadata
    again = flower.make_message(metadata=about, content=RecordDict())
    assert (again.metadata.dst_node_id, again.metadata.message_type) == (7, "train")


def metadata_comes_from_the_wire() -> None:
    proto = flower.ProtoMessage()
    proto.metadata.message_type = "train"
    proto.metadata.src_node_id = 5
    proto.metadata.group_id = "3"
    about = flower.metadata_from_proto(proto.metadata)
    assert isinstance(about, Metadata)
    assert (about.src_node_id, about.group_id) == (5, "3")
    assert {"metadata", "error"} <= fields(proto)


def a_task_is_handed_out_and_answered() -> None:
    sent = message()
    sent.metadata.__dict__["_message_id"] = sent.object_id
    tree = flower.get_object_tree(sent)
    assert tree.object_id == sent.object_id and len(tree.children) == 1
    answer = flower.runtime_pb2.PullTaskInputResponse(
        context=flower.context_to_proto(
            Context(
                run_id=4,
                node_id=7,
                node_config={"a": 1},
                state=RecordDict(),
                run_config={"b": 2.5},
            )
        ),
        run=flower.run_to_proto(flower.Run.create_empty(run_id=4)),
        fab=flower.fab_to_proto(flower.Fab("hash", b"content", {})),
        task_id=1,
    )
    assert answer.context.node_config["a"].sint64 == 1
    assert (answer.run.run_id, answer.fab.content) == (4, b"content")
    assert flower.message_to_proto(sent).metadata.message_type == "train"
    pulled = flower.message_pb2.PullObjectResponse(
        object_found=True, object_available=True, object_content=b"x"
    )
    assert pulled.object_content == b"x"


def run_configs_are_read_as_flower_reads_them() -> None:
    assert flower.parse_config_args(["a=1 b='x y' c=true"]) == {
        "a": 1,
        "b": "x y",
        "c": True,
    }


def an_app_is_read_and_packed() -> None:
    config, _ = flower.load_and_validate(ROOT / "pyproject.toml")
    publisher, version = flower.get_metadata_from_config(config)
    assert publisher == "expertfleet/expertfleet"
    assert version == config["project"]["version"]


def nodes_say_how_often_they_are_heard() -> None:
    node = flower.NodeInfo(node_id=3, heartbeat_interval=30.0)
    assert 0 < node.heartbeat_interval <= flower.HEARTBEAT_MAX_INTERVAL
    assert flower.HEARTBEAT_PATIENCE >= 1
    assert flower.HEARTBEAT_INTERVAL_INF > flower.HEARTBEAT_MAX_INTERVAL


def what_is_signed_holds_the_digest_and_the_time() -> None:
    signed = flower.create_message_to_sign(b"digest", 1234)
    assert signed != flower.create_message_to_sign(b"digest", 1235)
    assert signed != flower.create_message_to_sign(b"Digest", 1234)


def a_task_is_known_by_three_numbers() -> None:
    # Read and written by every message that is made outside a task of Flower's own.
    sent = message()
    assert (sent.metadata.run_id, sent.metadata.src_node_id) == (1, 0)
    flower.TaskIdentity.node_id = 9
    assert Message(RecordDict(), 7, "train").metadata.src_node_id == 9


def grids_over_http_have_a_client_that_can_be_watched() -> None:
    assert issubclass(flower.HttpGrid, Grid)
    source = inspect.getsource(flower.HttpGrid)
    for used in ("_runtime_client", "PullMessages", "PullObject"):
        assert used in source


def grids_are_told_apart() -> None:
    other, found = object.__new__(flower.HttpGrid), object.__new__(flower.InMemoryGrid)
    assert flower.is_http_grid(other) and not flower.is_http_grid(found)
    assert flower.is_in_memory_grid(found) and not flower.is_in_memory_grid(other)


def interceptors_are_made_as_we_make_them() -> None:
    flower.CliClientHttpInterceptor()
    flower.RuntimeVersionHttpInterceptor(component_name="flwr CLI")


def a_run_is_started_from_a_hub() -> None:
    config = flower.user_config_to_proto({"lr": 0.5, "seed": 2**40})
    request = flower.StartRunRequest(app_spec="@me/app==1", override_config=config)
    assert request.override_config["lr"].double == 0.5
    assert request.override_config["seed"].sint64 == 2**40
    assert not request.HasField("fab")


def arrays_are_cut_as_we_say() -> None:
    array = Array(np.zeros(1_000, dtype=np.float32))  # 4 000 bytes and a header of 128
    before = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
    try:
        flower.cut_arrays(1_000)
        assert len(array.slice_array()) == 5
    finally:
        flower.cut_arrays(before)
    assert len(Array(np.zeros(1_000, dtype=np.float32)).slice_array()) == 1


def a_supernode_talks_by_a_client_that_can_be_another() -> None:
    for name in ("PullMessages", "PullObject", "PushMessages", "PushObject"):
        assert parameters(getattr(flower.FleetHttpClient, name)) == ["self", "request"]
    source = inspect.getsource(fleet_http_connection)
    assert "with FleetHttpClient.from_server_address(" in source
    assert callable(supernode_cli.flower_supernode)
    assert callable(flower.run_supernode)


def a_supernode_remembers_in_a_state_that_can_be_another() -> None:
    source = inspect.getsource(nodestate_factory)
    assert "self.state_instance = InMemoryNodeState(object_store)" in source
    source = inspect.getsource(start_client_internal)
    assert "while not (reply_messages := state.get_messages_legacy(is_reply=True)" in (
        source
    )
    assert source.count("subprocess.") == source.count("subprocess.Popen(command)") == 1
    replies = inspect.getsource(flower.InMemoryNodeState._store_error_replies)
    assert "entry.is_retrieved" in replies
    assert flower.CLIENT_APP_CRASHED_ERROR.code == flower.ErrorCode.CLIENT_APP_CRASHED


CHECKS: dict[str, Callable[[], None]] = {
    "CLIENT_APP_CRASHED_ERROR": a_supernode_remembers_in_a_state_that_can_be_another,
    "CliClientHttpInterceptor": interceptors_are_made_as_we_make_them,
    "ConfirmMessageReceivedRequest": lambda: _is(
        flower.ConfirmMessageReceivedRequest(message_object_id="m").message_object_id,
        "m",
    ),
    "ControlHttpClient": lambda: _has(
        flower.ControlHttpClient.from_server_address, "server_address"
    ),
    "ErrorCode": lambda: _is(int(flower.ErrorCode.MESSAGE_UNAVAILABLE), 3),
    "FleetHttpClient": a_supernode_talks_by_a_client_that_can_be_another,
    "HEARTBEAT_INTERVAL_INF": nodes_say_how_often_they_are_heard,
    "HEARTBEAT_MAX_INTERVAL": nodes_say_how_often_they_are_heard,
    "HEARTBEAT_PATIENCE": nodes_say_how_often_they_are_heard,
    "HttpGrid": grids_over_http_have_a_client_that_can_be_watched,
    "InMemoryGrid": grids_are_told_apart,
    "InMemoryNodeState": a_supernode_remembers_in_a_state_that_can_be_another,
    "ListNodesRequest": lambda: flower.ListNodesRequest().Clear(),
    "ListRunsRequest": lambda: _is(flower.ListRunsRequest(limit=3).limit, 3),
    "NodeInfo": nodes_say_how_often_they_are_heard,
    "ObjectPullError": lambda: _is(issubclass(flower.ObjectPullError, Exception), True),
    "ObjectPushError": lambda: _is(issubclass(flower.ObjectPushError, Exception), True),
    "ObjectTree": trees_name_their_objects,
    "ObjectUnavailableError": lambda: _has(flower.ObjectUnavailableError, "object_id"),
    "ProtoMessage": metadata_comes_from_the_wire,
    "PullAppMessagesRequest": lambda: _is(
        list(flower.PullAppMessagesRequest(message_ids=["a"]).message_ids), ["a"]
    ),
    "RegisterNodeRequest": lambda: _is(
        flower.RegisterNodeRequest(public_key=b"k", name="n").name, "n"
    ),
    "Run": lambda: _is(flower.Run.create_empty(run_id=1).run_id, 1),
    "RuntimeVersionHttpInterceptor": interceptors_are_made_as_we_make_them,
    "StartRunRequest": a_run_is_started_from_a_hub,
    "Status": lambda: _is(
        {flower.Status.PENDING, flower.Status.STARTING, flower.Status.RUNNING},
        {"pending", "starting", "running"},
    ),
    "StopRunRequest": lambda: _is(flower.StopRunRequest(run_id=3).run_id, 3),
    "StreamLogsRequest": lambda: _is(
        flower.StreamLogsRequest(run_id=3, after_timestamp=1.5).after_timestamp, 1.5
    ),
    "TaskIdentity": a_task_is_known_by_three_numbers,
    "UnregisterNodeRequest": lambda: _is(
        flower.UnregisterNodeRequest(node_id=3).node_id, 3
    ),
    "build_fab_from_disk": lambda: _is(len(parameters(flower.build_fab_from_disk)), 1),
    "create_message_to_sign": what_is_signed_holds_the_digest_and_the_time,
    "cut_arrays": arrays_are_cut_as_we_say,
    "flatten_dict": lambda: _is(flower.flatten_dict({"a": {"b": 1}}), {"a.b": 1}),
    "flower_log": lambda: flower.flower_log("a line with a % in it"),
    "get_all_nested_objects": objects_travel_one_by_one,
    "get_metadata_from_config": an_app_is_read_and_packed,
    "get_object_head_values_from_object_content": objects_travel_one_by_one,
    "inflate_object_from_contents": objects_travel_one_by_one,
    "is_http_grid": grids_are_told_apart,
    "is_in_memory_grid": grids_are_told_apart,
    "iterate_object_tree": trees_name_their_objects,
    "load_and_validate": an_app_is_read_and_packed,
    "make_message": a_message_is_made_of_its_metadata,
    "make_pull_object_fn_protobuf": lambda: _has(
        flower.make_pull_object_fn_protobuf, "pull_object_protobuf", "node", "run_id"
    ),
    "metadata_from_proto": metadata_comes_from_the_wire,
    "parse_config_args": run_configs_are_read_as_flower_reads_them,
    "Fab": a_task_is_handed_out_and_answered,
    "context_to_proto": a_task_is_handed_out_and_answered,
    "fab_to_proto": a_task_is_handed_out_and_answered,
    "get_object_tree": a_task_is_handed_out_and_answered,
    "message_pb2": a_task_is_handed_out_and_answered,
    "message_to_proto": a_task_is_handed_out_and_answered,
    "run_to_proto": a_task_is_handed_out_and_answered,
    "runtime_pb2": a_task_is_handed_out_and_answered,
    "pull_objects": pulls_are_made_of_one_call_an_object,
    "user_config_to_proto": a_run_is_started_from_a_hub,
    "run_supernode": a_supernode_talks_by_a_client_that_can_be_another,
}


def _has(function: Callable[..., Any], *names: str) -> None:
    assert set(names) <= set(parameters(function))


def _is(found: object, expected: object) -> None:
    assert found == expected


@pytest.mark.parametrize("name", flower.__all__)
def test_the_name_does_what_we_rely_on(name: str) -> None:
    CHECKS[name]()


def test_there_is_no_other_private_name() -> None:
    for package in ("server_app", "client_app", "common", "benchmarks"):
        for path in (ROOT / package).rglob("*.py"):
            if path == Path(flower.__file__):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module]
                elif isinstance(node, ast.Import):
                    names = [each.name for each in node.names]
                else:
                    continue
                private = {n for n in names if n.split(".")[0] == "flwr"} - PUBLIC
                assert not private, f"{path.relative_to(ROOT)}: {private}"


def test_what_is_loaded_is_what_is_needed() -> None:
    # A device that trains needs none of these names; a server, or a command of the
    # operator, neither a database nor a web server, nor what its solver does not.
    code = (
        "import sys, client_app.app\n"
        "print('common.flower_internals' in sys.modules)\n"
        "import server_app.app, server_app.provisioning.command\n"
        "print({'sqlalchemy', 'fastapi', 'pandas'} & sys.modules.keys())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert said.stdout.split() == ["False", "set()"], said
