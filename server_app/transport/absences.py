"""Devices that are out of reach for a while, and what not to ask about them.

A SuperLink that is asked for the reply of a device it takes for offline answers "node
unavailable", and deletes the order (Flower 1.41): the reply, which the device may have
half uploaded or still works on, is refused when the link is back. Flower takes a device
for offline 38 to 60 s after its link has gone. So nobody asks for a while.
"""

import time
from collections.abc import Callable, Iterable

from common.flower_internals import NodeInfo

AWAY_SECONDS = 120.0
"""How long a device may be offline before its order is given up."""

LOOK_SECONDS = 5.0
"""Between two looks at the nodes while one is out of reach."""

MARGIN_SECONDS = 5.0
"""Nothing is asked so shortly before a device would be taken for offline."""


class Absences:
    """Who may be asked about.

    Parameters
    ----------
    nodes : callable
        Returns what the SuperLink knows of the nodes that are online.
    """

    def __init__(self, nodes: Callable[[], Iterable[NodeInfo]]) -> None:
        self._nodes = nodes
        self._online_until: dict[int, float] = {}
        self._gone_since: dict[int, float] = {}
        self._looked = 0.0

    def may_ask(self, node: int) -> bool:
        """Whether to ask for the reply of a node now."""
        now = time.time()
        if not self._is_online(node, now) and now >= self._looked + LOOK_SECONDS:
            self._looked = now
            self._online_until = {n.node_id: n.online_until for n in self._nodes()}
        if self._is_online(node, now):
            self._gone_since.pop(node, None)
            return True
        return now > self._gone_since.setdefault(node, now) + AWAY_SECONDS

    def _is_online(self, node: int, now: float) -> bool:
        return now + MARGIN_SECONDS < self._online_until.get(node, 0.0)
