"""Messages that are gone, and how the server finds out.

Flower delivers a message once, and notes the delivery before it makes it. A SuperLink
that dies in between, a connection that breaks, a device that loses power with a message
in its memory: nobody has it any more, and nobody would say so before the deadline.

A SuperNode works on one message at a time, in the order they were written, and takes
the next when its reply to the last is sent or given up (Flower 1.41). So where a ping
that was written after a message is answered and the message is not, it never will be.
"""

import time
from collections.abc import Mapping
from datetime import datetime

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.flower_internals import HEARTBEAT_MAX_INTERVAL, NodeInfo

PING = "query.ping"
"""Type of a message that a ClientApp answers with nothing."""

LOOK_SECONDS = 10.0
"""Between two looks at the nodes."""

PATIENCE_SECONDS = 30.0
"""Silence after which a node is pinged, at the least."""

BACK_OFF = 4
"""How many times as long the next silence may last."""


class Watch:
    """Watches messages that wait for a reply.

    Only a doubt costs a ping, which is a process started on the device: a node has been
    activated since the message was written, or has been silent for too long.

    Parameters
    ----------
    patience : float
        Seconds of silence that are too long; at least ``PATIENCE_SECONDS``.

    Attributes
    ----------
    pings : dict of str to str
        By the id of a ping that is out, the id of the message it is about.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self.pings: dict[str, str] = {}
        self.set_patience(patience)
        self._looked = time.monotonic()
        self._activated: dict[int, float] = {}
        self._silences: dict[str, float] = {}
        self._proven: set[str] = set()

    def set_patience(self, seconds: float) -> None:
        """Set what silence is too long."""
        self._patience = max(seconds, PATIENCE_SECONDS)

    def look(self, grid: Grid, waiting: Mapping[str, Message]) -> None:
        """Ping the nodes of messages that are in doubt.

        Nothing within ``LOOK_SECONDS`` of the last look, and nothing to the nodes of a
        simulation: they answer in any order, and lose nothing.

        Parameters
        ----------
        waiting : mapping of str to Message
            By their ids, messages without a reply.
        """
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._silences = {k: v for k, v in self._silences.items() if k in waiting}
        activated = {
            node.node_id: datetime.fromisoformat(node.last_activated_at).timestamp()
            for node in grid.get_nodes()
            if node.last_activated_at and _is_supernode(node)
        }
        pings: dict[str, Message] = {}
        for message_id, message in waiting.items():
            about = message.metadata
            left = about.created_at + about.ttl - time.time()
            last = activated.get(about.dst_node_id)
            if last is not None and left > 0 and self._in_doubt(message, last):
                pings[message_id] = Message(
                    RecordDict(),
                    about.dst_node_id,
                    PING,
                    ttl=left,
                    group_id=about.group_id,
                )
        if pings:
            taken = set(grid.push_messages([*pings.values()]))
            for message_id, ping in pings.items():
                if ping.metadata.message_id in taken:
                    self.pings[ping.metadata.message_id] = message_id

    def _in_doubt(self, message: Message, activated: float) -> bool:
        about = message.metadata
        # Once for one activation: clocks of SuperLink and ServerApp may differ.
        known = self._activated.get(about.dst_node_id, about.created_at)
        if activated > known:
            self._activated[about.dst_node_id] = activated
            return True
        allowed = self._silences.get(about.message_id, self._patience)
        if time.time() < about.created_at + allowed:
            return False
        self._silences[about.message_id] = allowed * BACK_OFF
        return True

    def take(self, reply: Message) -> bool:
        """Take in a reply if it is to a ping; say whether it was.

        An error proves nothing: it may be the SuperLink's, of a node that is away.
        """
        about = self.pings.pop(reply.metadata.reply_to_message_id, None)
        if about is not None and not reply.has_error():
            self._proven.add(about)
        return about is not None

    def proven(self) -> set[str]:
        """Return, once, the ids of messages that pings of before have overtaken.

        Those that have no reply after all replies were pulled once more are lost.
        """
        found, self._proven = self._proven, set()
        return found


def is_virtual(node: NodeInfo) -> bool:
    """Whether it is a node of a simulation: no heartbeat of it is awaited in time."""
    return node.heartbeat_interval > HEARTBEAT_MAX_INTERVAL


def _is_supernode(node: NodeInfo) -> bool:
    """Whether its heartbeat is awaited; Flower awaits none of a virtual node."""
    return 0 < node.heartbeat_interval <= HEARTBEAT_MAX_INTERVAL
