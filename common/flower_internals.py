"""Names of Flower that its public packages do not offer: all that this project uses.

``flwr.app``, ``flwr.clientapp``, ``flwr.serverapp`` and ``flwr.serverapp.strategy`` are
public; every other name may move or change in any release. They are imported here and
nowhere else, so that another release of Flower is tried on one module: a test says of
each name what we rely on. No device imports this while it trains.

Some come with a database or a web server, two seconds of processor time that a command
which needs neither does without: those are imported when they are asked for.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeGuard

from flwr.app.message import make_message
from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
from flwr.cli.config_utils import load_and_validate
from flwr.common.config import (
    flatten_dict,
    get_metadata_from_config,
    parse_config_args,
)
from flwr.common.constant import (
    HEARTBEAT_INTERVAL_INF,
    HEARTBEAT_MAX_INTERVAL,
    ErrorCode,
)
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    UnregisterNodeRequest,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_head_values_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

if TYPE_CHECKING:
    from flwr.cli.build import build_fab_from_disk
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.superlink.grid.http_grid import HttpGrid
    from flwr.superlink.grid.inmemory_grid import InMemoryGrid

__all__ = [
    "HEARTBEAT_INTERVAL_INF",
    "HEARTBEAT_MAX_INTERVAL",
    "CliClientHttpInterceptor",
    "ConfirmMessageReceivedRequest",
    "ControlHttpClient",
    "ErrorCode",
    "HttpGrid",
    "InMemoryGrid",
    "ListNodesRequest",
    "NodeInfo",
    "ObjectPullError",
    "ObjectPushError",
    "ObjectTree",
    "ProtoMessage",
    "PullAppMessagesRequest",
    "RegisterNodeRequest",
    "Run",
    "RuntimeVersionHttpInterceptor",
    "TaskIdentity",
    "UnregisterNodeRequest",
    "build_fab_from_disk",
    "create_message_to_sign",
    "flatten_dict",
    "get_all_nested_objects",
    "get_metadata_from_config",
    "get_object_head_values_from_object_content",
    "inflate_object_from_contents",
    "is_http_grid",
    "is_in_memory_grid",
    "iterate_object_tree",
    "load_and_validate",
    "make_message",
    "make_pull_object_fn_protobuf",
    "metadata_from_proto",
    "parse_config_args",
    "pull_objects",
]

_LATE = {
    "HttpGrid": "flwr.superlink.grid.http_grid",
    "InMemoryGrid": "flwr.superlink.grid.inmemory_grid",
    "RuntimeVersionHttpInterceptor": "flwr.supercore.interceptors",
    "build_fab_from_disk": "flwr.cli.build",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


def is_http_grid(grid: Grid) -> "TypeGuard[HttpGrid]":
    """Whether a grid is that of a deployment."""
    return _is(grid, "HttpGrid")


def is_in_memory_grid(grid: Grid) -> "TypeGuard[InMemoryGrid]":
    """Whether a grid is that of Flower's simulation."""
    return _is(grid, "InMemoryGrid")


def _is(grid: Grid, name: str) -> bool:
    # Who has made one has imported its class.
    module = sys.modules.get(_LATE[name])
    return module is not None and isinstance(grid, getattr(module, name))
