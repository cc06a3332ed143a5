"""The parts a client was sent, kept so that they need not be sent again.

A version is a hash of the part as it travelled. What is recalled is hashed again, so a
client never trains on other values than those ordered: it has them or says it lacks
them. Kept are the newest version of each part, and of the parts the current order does
not name the latest ones only: at most ``ROOM`` times as many as the order has.
"""

import io
import logging
import re

import numpy as np
from flwr.app import Array

from client_app.store import Store
from common.wire import TrainOrder, version

logger = logging.getLogger("flwr.expertfleet")

PARTS = "parts/"
ROOM = 4

_NAME = re.compile(r"parts/(\d+)-([\w.]+)-([0-9a-f]{16})\.npy")


class PartCache:
    """Cached parts of one client in one run.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def _entries(self) -> list[tuple[str, str, str]]:
        """Return (name, part, version) of everything kept, oldest first."""
        found = (_NAME.fullmatch(name) for name in self._store.names(PARTS))
        return [(match[0], match[2], match[3]) for match in found if match]

    def versions(self) -> list[str]:
        """Return the versions held, oldest first."""
        return [version for _, _, version in self._entries()]

    def recall(self, order: TrainOrder) -> dict[str, Array]:
        """Return the parts an order leaves to the cache, as far as they are there."""
        kept = {(part, version): name for name, part, version in self._entries()}
        recalled = {}
        for wanted in zip(order.cached_parts, order.cached_versions, strict=True):
            data = self._store.read(kept[wanted]) if wanted in kept else None
            if data is None:
                continue
            try:
                array = Array(np.load(io.BytesIO(data), allow_pickle=False))
            except (ValueError, EOFError, OSError):
                continue
            if version(array) == wanted[1]:
                recalled[wanted[0]] = array
        return recalled

    def keep(self, order: TrainOrder, received: dict[str, Array]) -> None:
        """Keep what was sent; a device without room for it goes on without."""
        try:
            for part, array in received.items():
                name = f"{PARTS}{order.server_round:06d}-{part}-{version(array)}.npy"
                self._store.write(name, array.data)
        except OSError as error:
            logger.warning("the expert cache cannot be written: %s", error)
        current = {*order.cached_parts, *received}
        entries = self._entries()
        newest = {part: name for name, part, _ in entries}
        others = [name for part, name in newest.items() if part not in current]
        room = (ROOM - 1) * len(current)
        dropped = set(sorted(others)[: max(0, len(others) - room)])
        for name, part, _ in entries:
            if newest[part] != name or name in dropped:
                self._store.remove(name)
