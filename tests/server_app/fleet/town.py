"""Nodes made by hand, and a server's fleet that looks at them."""

from collections.abc import Iterable
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import HEARTBEAT_INTERVAL_INF
from flwr.proto.node_pb2 import NodeInfo

from common import wire
from common.code_hash import code_hash
from common.inline_grid import InlineGrid
from common.moe import ModelSpec
from common.settings import Settings
from common.task import task_from_json
from common.wire import QueryReply
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.fleet import Fleet
from server_app.transport.mailbox import Mailbox

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=8,
    expert_hidden=32,
    top_k=1,
)


def digest_of(message: Message) -> str:
    """Return the hash of the task that a query came with."""
    asked = wire.decode_query(message.content)
    return task_from_json(asked.task).digest if asked else ""


class Town(InlineGrid):
    """Nodes that come and go, say what they are told to, fail or are silent.

    Attributes
    ----------
    here : list of int
        Nodes that are connected.
    says : dict of int to dict
        What a node says of itself, beside the usual.
    broken, deaf : set of int
        Nodes that fail a query; nodes that do not answer it.
    activated : dict of int to str
        When a node came.
    asked : list of int
        Whom queries have reached, in order.
    """

    def __init__(self, nodes: int, partitions: int = 4, *, virtual: bool = False):
        app = ClientApp()

        @app.query()
        def query(message: Message, context: Context) -> Message:
            self.asked.append(context.node_id)
            if context.node_id in self.broken:
                raise OSError("out of order")
            partition = context.node_id - 1
            fields: dict[str, Any] = {
                "client": f"client-{partition}",
                "partition_id": partition,
                "num_partitions": partitions,
                "num_examples": 10,
                "code_hash": code_hash(),
                "partition_hash": "p",
                "task_hash": digest_of(message),
                **self.says.get(context.node_id, {}),
            }
            reply = wire.encode_query_reply(QueryReply(**fields))
            return Message(reply, reply_to=message)

        super().__init__(app, nodes, {})
        self.here = list(range(1, nodes + 1))
        self.says: dict[int, dict[str, Any]] = {}
        self.broken: set[int] = set()
        self.deaf: set[int] = set()
        self.activated: dict[int, str] = {}
        self.asked: list[int] = []
        self._interval = HEARTBEAT_INTERVAL_INF if virtual else 30.0

    def get_node_ids(self) -> list[int]:
        return list(self.here)

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(
                node_id=node,
                last_activated_at=self.activated.get(node, "2026-01-01T00:00:00Z"),
                heartbeat_interval=self._interval,
            )
            for node in self.here
        ]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return super().pull_messages(
            i
            for i in message_ids
            if i in self._pending
            and self._pending[i].metadata.dst_node_id not in self.deaf
        )


OLD = {"code_hash": "0" * 16}


class Server:
    """A fleet that looks at a town round by round, with one mailbox."""

    def __init__(self, town: Town, **config: Any) -> None:
        settings = Settings.from_run_config(
            {key.replace("_", "-"): value for key, value in config.items()}
        )
        self.fleet = Fleet(settings, DeviceBudget(settings, SPEC, largest=8))
        self.town, self.mailbox = town, Mailbox()

    def ready(self, server_round: int, timeout: float = 5.0) -> list[str]:
        found = self.fleet.refresh(self.town, self.mailbox, server_round, timeout)
        return [client.name for client in found]
