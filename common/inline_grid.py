"""A Flower Grid that runs the ClientApp in this process: tests, notebooks, studies.

The same ServerApp and ClientApp objects as under ``flwr run``, without Ray, SuperLink
or sockets. A message is handled when its reply is pulled, one at a time, so a study
holds one reply in memory. ``serialise=True`` deflates and inflates every message as
the network would.
"""

import secrets
import traceback
from collections.abc import Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from common.flower_internals import (
    HEARTBEAT_INTERVAL_INF,
    NodeInfo,
    Run,
    TaskIdentity,
    get_all_nested_objects,
    inflate_object_from_contents,
)

Scalar = str | int | float | bool


class InlineGrid(Grid):
    """All nodes of a federation in one process.

    Parameters
    ----------
    client_app : ClientApp
    num_nodes : int
        Virtual clients; node ids are 1 to ``num_nodes``.
    run_config : mapping of str to scalar
        What every client finds in ``context.run_config``.
    serialise : bool
        Whether messages make the full round trip through bytes.
    closed : bool
        Whether nobody joins or leaves, as in Flower's simulation.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        run_config: Mapping[str, Scalar],
        *,
        serialise: bool = False,
        closed: bool = False,
    ) -> None:
        self._app = client_app
        self._serialise = serialise
        self._heartbeat = HEARTBEAT_INTERVAL_INF if closed else 0.0
        self._run = Run.create_empty(run_id=1)
        self._sent = 0
        self._pending: dict[str, Message] = {}
        # As Flower does: a run that is resumed gets a number of its own.
        number = secrets.randbits(62)
        self.contexts = {
            node: Context(
                run_id=number,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for node in range(1, num_nodes + 1)
        }
        # Message() refuses to be built outside a task.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0

    def set_run(self, run: Run) -> None:
        """Set the run this grid operates in."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid operates in."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Build a message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return all node ids."""
        return list(self.contexts)

    def get_nodes(self) -> list[NodeInfo]:
        """Return all nodes; of one that cannot leave no heartbeat is awaited."""
        return [
            NodeInfo(node_id=node, heartbeat_interval=self._heartbeat)
            for node in self.get_node_ids()
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Accept messages; they are handled when their replies are pulled."""
        ids = []
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = str(self._sent)
            self._pending[str(self._sent)] = message
            ids.append(str(self._sent))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Handle the oldest of the given messages and return its reply."""
        for message_id in sorted(message_ids, key=int):
            if (message := self._pending.pop(message_id, None)) is not None:
                return [self._handle(message)]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Handle all messages and return their replies."""
        return [
            self._handle(self._pending.pop(i)) for i in self.push_messages(messages)
        ]

    def _handle(self, message: Message) -> Message:
        context = self.contexts[message.metadata.dst_node_id]
        try:
            reply = self._app(message=self._wired(message), context=context)
            return self._wired(reply)
        except Exception as error:  # what a SuperNode answers when a ClientApp raises
            reason = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            return Message(Error(code=2, reason=reason), reply_to=message)

    def _wired(self, message: Message) -> Message:
        """Return what arrives at the other end of a wire."""
        if not self._serialise or not message.has_content():
            return message
        content = message.content
        objects = {
            key: item.deflate() for key, item in get_all_nested_objects(content).items()
        }
        arrived = inflate_object_from_contents(content.object_id, objects)
        assert isinstance(arrived, RecordDict)
        message.content = arrived
        return message
