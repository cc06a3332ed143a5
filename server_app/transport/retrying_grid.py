"""A Grid that outlives an outage of the SuperLink.

Flower's own retries give up at once when the words of an error hint at TLS, lest a
wrong certificate be tried for ever. A SuperLink that dies in the middle of a handshake
gives the same words ("EOF occurred in violation of protocol"), and the run was lost.
By the time we get to ask, the certificate has been accepted, so trying again is right.

A message's objects are pushed and pulled one by one within a session, which a SuperLink
that was started again no longer knows: it answers, and refuses the rest. The call as a
whole opens another session.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Set
from typing import TypeVar

import httpx
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.flower_internals import (
    NodeInfo,
    ObjectPullError,
    ObjectPushError,
    Run,
    is_http_grid,
)
from server_app.transport.absences import Absences
from server_app.transport.pulling import BoundedPull

logger = logging.getLogger("flwr.expertfleet")

OUTAGE_SECONDS = 300.0
"""How long an outage may last. Flower fails the run after some 60 s without a sign of
life from the ServerApp, so a longer one ends in its refusal, not in silence."""

PAUSE_SECONDS = 1.0

OUTAGE = (httpx.TransportError, ObjectPushError, ObjectPullError)
"""What a call ends with while the SuperLink is away, or was in the middle of it."""

Answer = TypeVar("Answer")


class PatientGrid(Grid):
    """Another Grid, whose calls are tried again while the SuperLink is unreachable.

    Trying again is safe: Flower knows a message by its content and takes it in once.

    Parameters
    ----------
    grid : Grid
    most : mapping of str to int, optional
        The most bytes of a reply to each type of message; see
        ``server_app.transport.pulling``. What is not named is not bounded.

    Raises
    ------
    httpx.TransportError, ObjectPushError, ObjectPullError
        By any call, after ``OUTAGE_SECONDS`` of failures.
    """

    def __init__(self, grid: Grid, most: Mapping[str, int] | None = None) -> None:
        self._grid = grid
        self._most = most or {}
        self._types: dict[str, str] = {}  # of messages without a reply, by id
        self._to: dict[str, int] = {}  # the nodes they went to
        self._bounded = BoundedPull(grid) if is_http_grid(grid) else None
        self._absences = Absences(self.get_nodes)

    def _persist(self, call: Callable[[], Answer]) -> Answer:
        started = time.monotonic()
        told = False
        while True:
            try:
                return call()
            except OUTAGE as error:
                if time.monotonic() - started > OUTAGE_SECONDS:
                    raise
                if not told:
                    logger.warning("the SuperLink is unreachable, trying on: %s", error)
                told = True
                time.sleep(PAUSE_SECONDS)

    def set_run(self, run: Run) -> None:
        """Set the run of the Grid underneath."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the Grid underneath."""
        return self._grid.run

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

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes that are connected."""
        return self._persist(lambda: list(self._grid.get_node_ids()))

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what the SuperLink knows of the nodes that are connected."""
        return self._persist(lambda: list(self._grid.get_nodes()))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages; see :meth:`flwr.serverapp.Grid.push_messages`."""
        pushed = list(messages)
        ids = self._persist(lambda: self._grid.push_messages(pushed))
        self._types |= {
            each.metadata.message_id: each.metadata.message_type for each in pushed
        }
        self._to |= {
            each.metadata.message_id: each.metadata.dst_node_id for each in pushed
        }
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies; see :meth:`flwr.serverapp.Grid.pull_messages`."""
        asked = list(message_ids)
        if (bounded := self._bounded) is not None:
            asked = [each for each in asked if self._may_ask(each)]
            replies = self._persist(lambda: bounded(asked, self._largest_reply))
        else:
            replies = self._persist(lambda: list(self._grid.pull_messages(asked)))
        for reply in replies:
            self._types.pop(reply.metadata.reply_to_message_id, None)
            self._to.pop(reply.metadata.reply_to_message_id, None)
        return replies

    @property
    def arriving(self) -> Set[str]:
        """Ids of the messages whose replies have been announced and are on the way."""
        return frozenset() if self._bounded is None else self._bounded.arriving

    def _may_ask(self, message_id: str) -> bool:
        node = self._to.get(message_id)
        return (
            node is None or message_id in self.arriving or self._absences.may_ask(node)
        )

    def _largest_reply(self, message_id: str) -> int:
        action = self._types.get(message_id, "").partition(".")[0]
        return self._most.get(action, sys.maxsize)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull; see :meth:`flwr.serverapp.Grid.send_and_receive`."""
        return self._grid.send_and_receive(messages, timeout=timeout)


def arriving(grid: Grid) -> Set[str]:
    """Return the ids of messages whose replies a Grid says are on the way."""
    return grid.arriving if isinstance(grid, PatientGrid) else frozenset()
