"""Calls under way: how many there may be, and who gives way when there are too many.

A call costs something even while nothing happens on it, and its caller decides how long
that is. So a call that waits for its caller (for a message, or to take an answer) is
lent its place: it ends after a time, and at once when somebody who holds fewer places
needs one. A call that the server works on is never ended for another.

Who finds no place waits in a line, where nothing is read of it: places go to whoever
has fewest, and then to who came first.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from math import inf

import grpc

from common.serving.callers import Caller, CallRefused, End

PATIENCE = 0.1
"""Seconds a caller always gets before it has to give way."""

PATIENCE_ALONE = 2.0
"""The same for the only call of a connection: its message may be large and coming."""


class Call:
    """One call.

    Attributes
    ----------
    ending : tuple of StatusCode and str, or None
        What the call ends with, once somebody ends it.
    drained : tuple of StatusCode and str, or None
        No further message is wanted, and the call ends with this.
    placed : Future
        Done once the call has a place.
    """

    def __init__(self, caller: Caller, *, lent: bool = False) -> None:
        self.caller = caller
        self._lent = lent
        self._received = self._sent = 0
        self.ending: End | None = None
        self.drained: End | None = None
        self.placed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.current_task()
        self._writing = False
        self._since = time.monotonic()

    def place(self) -> None:
        """Give the call a place."""
        self._since = time.monotonic()
        if not self.placed.done():
            self.placed.set_result(None)

    def message_received(self) -> None:
        """Note that a message has come."""
        self._received += 1
        if not self._writing:  # who sends and never takes, waits all the same
            self._since = time.monotonic()

    def answer_begun(self) -> None:
        """Note that an answer is about to go."""
        self._writing = True
        self._since = time.monotonic()

    def answer_sent(self) -> None:
        """Note that it has gone."""
        self._writing = False
        self._sent += 1
        self._since = time.monotonic()

    @property
    def waits(self) -> bool:
        """Whether its caller is to do something next."""
        return self._lent or self._writing or self._sent >= self._received

    def waited(self, now: float) -> float:
        """Return for how many seconds the call has been waiting for its caller."""
        return now - self._since if self.waits else 0.0

    def end(self, code: grpc.StatusCode, text: str) -> None:
        """End the call from outside: its task is cancelled, and finds out why."""
        if self._task is not None and self.ending is None:
            self.ending = code, text
            self._task.cancel()

    def finished(self) -> None:
        """Note that there is nothing left to cancel."""
        self._task = None


class Calls:
    """A quota of calls.

    Parameters
    ----------
    most, largest : int
        Calls at a time, and bytes of a message; may be changed at any time.
    line : int
        Calls that may wait for a place.
    idle : float
        Seconds a call may wait for its caller, or for a place.
    lent : bool
        Whether every call gives way; for services whose calls watch rather than work.
    """

    def __init__(
        self,
        most: int,
        largest: int,
        *,
        line: int = 0,
        idle: float = inf,
        lent: bool = False,
    ) -> None:
        self.most, self.largest = most, largest
        self._most_waiting = line
        self._line: list[Call] = []
        self._idle, self._lent = idle, lent
        self._calls: set[Call] = set()

    def __iter__(self) -> Iterator[Call]:
        """Return the calls under way, and those that wait for a place."""
        return iter((*self._calls, *self._line))

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return len(self._line)

    def __len__(self) -> int:
        """Return how many calls have a place."""
        return len(self._calls)

    def call(self, caller: Caller) -> Call:
        """Return a call that has no place yet, of the task that runs."""
        return Call(caller, lent=self._lent)

    async def enter(self, call: Call) -> None:
        """Wait for a place; raises CallRefused if too many wait already."""
        self._line.append(call)
        self._seat()
        if len(self._line) > self._most_waiting:
            # Of whoever has most, the last to come.
            last = max(reversed(self._line), key=_weigher(self))
            text = (
                f"{self.most} calls are under way and {self._most_waiting} wait, the "
                "most at a time"
            )
            if last is call:
                raise CallRefused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            last.end(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            self._line.remove(last)
        await call.placed

    def leave(self, call: Call) -> None:
        """Give back the place of a call."""
        call.finished()
        self._calls.discard(call)
        if call in self._line:
            self._line.remove(call)
        self._seat()

    def _seat(self) -> None:
        """Give places to those that wait, as long as there are some or can be."""
        while self._line:
            call = min(self._line, key=_weigher(self._calls))
            if len(self._calls) >= self.most:
                victim = self._victim(call)
                if victim is None:
                    return
                text = (
                    f"others needed the place: {self.most} calls at a time, and this "
                    "one waited for its caller"
                )
                victim.end(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
                self._calls.discard(victim)
            self._line.remove(call)
            self._calls.add(call)
            call.place()

    def sweep(self, refuse: Callable[[Caller], End | None]) -> None:
        """End calls that waited too long, or whose caller may no longer call."""
        now = time.monotonic()
        for call in self:
            waited = call.waited(now)
            if end := refuse(call.caller):
                call.end(*end)
            elif call.drained and waited > PATIENCE:
                call.end(*call.drained)
            elif waited > self._idle and not call.placed.done():
                text = f"no place for {self._idle:g} s: {self.most} calls at a time"
                call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            elif waited > self._idle:
                text = f"nothing was sent or taken for {self._idle:g} s"
                call.end(grpc.StatusCode.DEADLINE_EXCEEDED, text)
        self._seat()

    def drain(self, text: str) -> None:
        """Want no further message of the calls of now: they end once they are answered.

        The next sweep ends those that wait for their caller.
        """
        for call in self:
            call.drained = grpc.StatusCode.UNAVAILABLE, text

    def _victim(self, newcomer: Call) -> Call | None:
        """Return whose place a newcomer gets: of whom has most, the longest waiting.

        Nobody gives way to a caller that has as many places itself, which would only
        turn his own calls out: by name, and between connections of one name.
        """
        now = time.monotonic()
        weigh = _weigher(self._calls)
        own = weigh(newcomer)

        def weight(call: Call) -> tuple[int, int]:
            names, connections = weigh(call)
            same = call.caller.name == newcomer.caller.name
            return own[0] if same else names, connections

        def patience(call: Call) -> float:
            alone = weigh(call)[1] == 1 and not self._lent
            return PATIENCE_ALONE if alone else PATIENCE

        waiting = [c for c in self._calls if c.waited(now) >= patience(c)]
        heavier = [c for c in waiting if weight(c) > own]
        return max(heavier, key=lambda c: (*weight(c), c.waited(now)), default=None)


def _weigher(calls: Iterable[Call]) -> Callable[[Call], tuple[int, int]]:
    """Return what says how many of these calls are of a call's name and connection."""
    callers = [call.caller for call in calls]
    names = Counter(caller.name for caller in callers)
    connections = Counter(caller.connection for caller in callers)
    return lambda call: (names[call.caller.name], connections[call.caller.connection])
