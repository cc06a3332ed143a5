"""The parts a client was sent, kept so that they need not be sent again.

A version is a hash of the part as it travelled. What is recalled is hashed again, so a
client never trains on other values than those ordered: it has them or says it lacks
them. Kept are the newest version of each part, and of the parts the current order does
not name the latest ones only: at most ``ROOM`` times as many as the order has.
"""

import re

from flwr.app import Array

from client_app.kept.store import Store, read_array
from common.wire import ROOM, TrainOrder, version

PARTS = "parts/"

_NAME = re.compile(r"parts/(\d+)-([\w.]+)-([0-9a-f]{16})\.npy")


class PartCache:
    """Cached parts of one client in one run."""

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
            if (array := read_array(data, wanted[1])) is not None:
                recalled[wanted[0]] = array
        return recalled

    def keep(self, order: TrainOrder, received: dict[str, Array]) -> None:
        """Keep what was sent; a device without room for it goes on without."""
        for part, array in received.items():
            name = f"{PARTS}{order.server_round:06d}-{part}-{version(array)}.npy"
            if not self._store.write(name, array.data):
                break  # the others would meet with the same
        current = {*order.cached_parts, *received}
        entries = self._entries()
        newest = {part: name for name, part, _ in entries}
        others = [name for part, name in newest.items() if part not in current]
        room = (ROOM - 1) * len(current)
        dropped = set(sorted(others)[: max(0, len(others) - room)])
        for name, part, _ in entries:
            if newest[part] != name or name in dropped:
                self._store.remove(name)
