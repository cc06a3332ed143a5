"""A Grid in simulated time: devices differ in speed, links carry bytes, some are away.

Clients train in this process as under :class:`common.inline_grid.InlineGrid`, but a
reply is there only when its device would have sent it, on a clock that moves when the
server sleeps. A study of hours takes as long as its training takes here, and the same
seed gives the same arrivals.
"""

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message

from common.flower_internals import NodeInfo
from common.inline_grid import InlineGrid


class SimulatedClock:
    """Time that passes only when somebody sleeps.

    Attributes
    ----------
    now : float
        Seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float, /) -> None:
        """Let time pass at once."""
        self.now += seconds


class TimedGrid(InlineGrid):
    """All nodes of a federation in one process and in simulated time.

    A device that is away takes no message, and sends what it has finished when it is
    back.

    Parameters
    ----------
    *given, **options
        Of :class:`InlineGrid`.
    clock : SimulatedClock
    seconds : Callable[[Message], float]
        From when a message is pushed until its device has its reply; queries take none.
    back : Callable[[int, float], float]
        Given a node and a time, when it is there from then on: that time, if it is
        there.
    """

    def __init__(
        self,
        *given: Any,
        clock: SimulatedClock,
        seconds: Callable[[Message], float],
        back: Callable[[int, float], float] = lambda _, now: now,
        **options: Any,
    ) -> None:
        super().__init__(*given, **options)
        self._clock, self._seconds, self._back = clock, seconds, back
        self._arrivals: dict[str, float] = {}

    def get_nodes(self) -> list[NodeInfo]:
        """Return the nodes that are there."""
        now = self._clock.now
        return [n for n in super().get_nodes() if self._back(n.node_id, now) == now]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Accept messages; each is answered after as long as its device takes."""
        pushed = list(messages)
        ids = super().push_messages(pushed)
        for message_id, message in zip(ids, pushed, strict=True):
            about, at = message.metadata, self._clock.now
            if not about.message_type.startswith("query"):
                at = self._back(about.dst_node_id, at + self._seconds(message))
            self._arrivals[message_id] = at
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Handle those of the given messages whose replies are there by now."""
        arrived = sorted(
            (self._arrivals[each], int(each))
            for each in message_ids
            if self._arrivals[each] <= self._clock.now and each in self._pending
        )
        return [self._handle(self._pending.pop(str(number))) for _, number in arrived]
