"""Names of Flower that its public packages do not offer: all that this project uses.

``flwr.app``, ``flwr.clientapp``, ``flwr.serverapp`` and ``flwr.serverapp.strategy`` are
public; every other name may move or change in any release. They are imported here and
nowhere else, so that another release of Flower is tried on one module: a test says of
each name what we rely on. No device imports this while it trains, but for one behind a
slow link.

Some come with a database or a web server, two seconds of processor time that a command
which needs neither does without: those are imported when they are asked for.
"""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

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
    HEARTBEAT_PATIENCE,
    ErrorCode,
    Status,
)
from flwr.common.serde import (
    context_to_proto,
    fab_to_proto,
    message_to_proto,
    run_to_proto,
    user_config_to_proto,
)
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto import message_pb2, runtime_pb2
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore import log
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_head_values_from_object_content,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    ObjectUnavailableError,
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
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.nodestate.in_memory_nodestate import (
        CLIENT_APP_CRASHED_ERROR,
        InMemoryNodeState,
    )

__all__ = [
    "CLIENT_APP_CRASHED_ERROR",
    "HEARTBEAT_INTERVAL_INF",
    "HEARTBEAT_MAX_INTERVAL",
    "HEARTBEAT_PATIENCE",
    "CliClientHttpInterceptor",
    "ConfirmMessageReceivedRequest",
    "ControlHttpClient",
    "ErrorCode",
    "Fab",
    "FleetHttpClient",
    "HttpGrid",
    "InMemoryGrid",
    "InMemoryNodeState",
    "ListNodesRequest",
    "ListRunsRequest",
    "NodeInfo",
    "ObjectPullError",
    "ObjectPushError",
    "ObjectTree",
    "ObjectUnavailableError",
    "ProtoMessage",
    "PullAppMessagesRequest",
    "RegisterNodeRequest",
    "Run",
    "RuntimeVersionHttpInterceptor",
    "StartRunRequest",
    "Status",
    "StopRunRequest",
    "StreamLogsRequest",
    "TaskIdentity",
    "UnregisterNodeRequest",
    "build_fab_from_disk",
    "context_to_proto",
    "create_message_to_sign",
    "cut_arrays",
    "fab_to_proto",
    "flatten_dict",
    "flower_log",
    "get_all_nested_objects",
    "get_metadata_from_config",
    "get_object_head_values_from_object_content",
    "get_object_tree",
    "inflate_object_from_contents",
    "is_http_grid",
    "is_in_memory_grid",
    "iterate_object_tree",
    "load_and_validate",
    "make_message",
    "make_pull_object_fn_protobuf",
    "message_pb2",
    "message_to_proto",
    "metadata_from_proto",
    "parse_config_args",
    "pull_objects",
    "run_supernode",
    "run_to_proto",
    "runtime_pb2",
    "user_config_to_proto",
]

_LATE = {
    "CLIENT_APP_CRASHED_ERROR": "flwr.supernode.nodestate.in_memory_nodestate",
    "FleetHttpClient": "flwr.supernode.fleet_http_client",
    "HttpGrid": "flwr.superlink.grid.http_grid",
    "InMemoryGrid": "flwr.superlink.grid.inmemory_grid",
    "InMemoryNodeState": "flwr.supernode.nodestate.in_memory_nodestate",
    "RuntimeVersionHttpInterceptor": "flwr.supercore.interceptors",
    "build_fab_from_disk": "flwr.cli.build",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


def cut_arrays(size: int) -> None:
    """Have all arrays that are sent from now on cut into pieces of ``size`` bytes.

    Flower reads the size from the environment once. One that was cut stays as it is.
    """
    setattr(import_module("flwr.app.message.array"), _CHUNK_SIZE, size)


_CHUNK_SIZE = "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"


def flower_log(line: str) -> None:
    """Write a line into the log of this process as Flower's own programs do."""
    log(logging.INFO, "%s", line)


def run_supernode(
    client: "type[FleetHttpClient]",
    state: "type[InMemoryNodeState]",
    launch: Callable[[list[str]], object],
    left: int,
) -> NoReturn:
    """Run ``flower-supernode`` on ``sys.argv`` with parts of our own.

    Parameters
    ----------
    client : type of FleetHttpClient
        How it speaks to the Fleet API.
    state : type of InMemoryNodeState
        What it remembers.
    launch : callable
        Starts the command of what starts a process for each order.
    left : int
        Exit code where an error, which it logs, has ended its work: below 100.

    Notes
    -----
    It ends with Flower's exit code modulo 256; Flower itself says 1 for every error.
    """
    connection = import_module("flwr.supernode.fleet_http_connection")
    starting = import_module("flwr.supernode.start_client_internal")
    factory = import_module("flwr.supernode.nodestate.nodestate_factory")
    connection.FleetHttpClient = client  # type: ignore[attr-defined]
    factory.InMemoryNodeState = state  # type: ignore[attr-defined]
    starting.subprocess = SimpleNamespace(Popen=launch)  # type: ignore[attr-defined]
    for module in (connection, starting):
        module.flwr_exit = telling_exit(module.flwr_exit)  # type: ignore[attr-defined]
    import_module("flwr.supernode.cli").flower_supernode()
    # Here an error has ended its loop, and its server of orders would go on for ever.
    with suppress(SystemExit):
        import_module("flwr.supercore.exit").flwr_exit(left)
    raise SystemExit(left)


def telling_exit(flwr_exit: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
    """Return Flower's way to end a program, with an exit code that says why."""

    def end(code: int, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            flwr_exit(code, *args, **kwargs)
        except SystemExit as ended:
            raise SystemExit(code % 256 if ended.code else 0) from None

    return end


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
