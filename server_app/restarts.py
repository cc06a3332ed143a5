"""Messages that are gone because the device that had fetched them was started again.

Flower delivers a message once. A SuperNode that loses power after that comes back as
the same node, without it. The SuperLink answers in its place only if it is asked while
the node is away, which a server that takes in another device's long reply does not do.
"""

import time
from collections.abc import Iterable
from datetime import datetime

from flwr.app import Message
from flwr.serverapp import Grid

LOOK_SECONDS = 10.0
"""Between two questions to the SuperLink."""


class Restarts:
    """Finds lost messages, each once, by when their node was last activated."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._handled: dict[int, float] = {}

    def lost(self, grid: Grid, messages: Iterable[Message]) -> list[Message]:
        """Return the messages that were written before their node came back.

        Nothing within ``LOOK_SECONDS`` of the last look, and no node twice for one
        return: clocks of SuperLink and ServerApp may differ.
        """
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return []
        self._looked = time.monotonic()
        back = {
            node.node_id: datetime.fromisoformat(node.last_activated_at).timestamp()
            for node in grid.get_nodes()
            if node.last_activated_at
        }
        found = []
        for message in messages:
            node = message.metadata.dst_node_id
            returned = back.get(node, 0.0)
            known = max(message.metadata.created_at, self._handled.get(node, 0.0))
            if returned > known:
                self._handled[node] = returned
                found.append(message)
        return found
