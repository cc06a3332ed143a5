"""Sending messages and taking in replies as they land, in any of Flower's modes."""

import time
from collections.abc import Callable, Generator, Iterator
from copy import copy
from dataclasses import dataclass
from math import inf
from typing import Protocol

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from common.flower_internals import ErrorCode
from server_app.run_error import RunError
from server_app.transport.pings import Watch, is_virtual
from server_app.transport.retrying_grid import arriving

Pending = dict[str, Message]
"""By their ids, messages without a reply."""

Resend = Callable[[int], Message | None]

POLL_SECONDS = 0.1
"""Between two looks for replies, where one may come at any moment."""

QUIET_SHARE = 0.02
"""The same where none has come for long, as a share of that time."""

LONGEST_PAUSE = 2.0
"""Seconds."""

# Replies are fetched a few at a time and merged before the next ones are: memory for
# these, not for the whole fleet's.
AT_ONCE = 8

_NOT_SENT = Error(0, "not sent")
_EXPIRED = Error(ErrorCode.MESSAGE_UNAVAILABLE, "no answer in time")

# What Flower's simulation answers for a client whose worker process is gone; the second
# as long as Ray has not made sure of it, which takes rounds where a machine is lost.
_WORKER_DIED = (
    "ray.exceptions.ActorDiedError",
    "ray.exceptions.ActorUnavailableError",
)


class WorkerLostError(RunError):
    """A worker process of the simulation died, and Flower does not replace it.

    The dead worker goes on being handed clients and fails each of them at once, faster
    than the living ones work: all rounds to come would be those few clients' alone.
    """


@dataclass(frozen=True, kw_only=True)
class Letter:
    """The reply to a message that nobody waited for, and the seconds until it came."""

    query: Message
    reply: Message
    seconds: float


def pause(quiet: float, left: float = inf) -> float:
    """Return the seconds until the next look for replies.

    A look is a request to the SuperLink. Ten a second, for as long as devices train and
    upload, took a twentieth of a core from it.

    Parameters
    ----------
    quiet : float
        Seconds for which no reply has come. Of real time: in simulated time a look
        costs nothing.
    left : float
        Seconds until nobody waits any more.
    """
    return max(POLL_SECONDS, min(QUIET_SHARE * quiet, LONGEST_PAUSE, left))


class Clock(Protocol):
    """What tells time and lets it pass; the module :mod:`time` is one."""

    def monotonic(self) -> float:
        """Return seconds."""

    def sleep(self, seconds: float, /) -> None:
        """Let seconds pass."""


class Mailbox:
    """Pushes messages, yields their replies, and counts those that come too late.

    What nobody waits for is posted; its replies lie here until they are collected.

    Parameters
    ----------
    clock : Clock
        By which an exchange ends: another than the real one where time is simulated.

    Attributes
    ----------
    late : int
        Replies discarded so far because nobody waited for them any more.
    """

    def __init__(self, clock: Clock = time) -> None:
        self.late = 0
        self._clock = clock
        self._watch = Watch()
        self._abandoned: dict[str, float] = {}
        self._posted: dict[str, Message] = {}
        self._letters: list[Letter] = []
        self._slowest = 0.0

    def post(self, grid: Grid, messages: list[Message]) -> None:
        """Push messages without waiting for their replies; see :meth:`collect`."""
        taken = set(grid.push_messages(messages))
        for message in messages:
            if message.metadata.message_id in taken:
                self._posted[message.metadata.message_id] = message
            else:
                self._receive(grid, message, Message(_NOT_SENT, reply_to=message))

    def collect(self, grid: Grid) -> list[Letter]:
        """Return the replies to what was posted that have come since the last time.

        What has expired without one is an error.
        """
        found = -1
        while self._posted and len(self._letters) > found:
            found = len(self._letters)
            self._fetch(grid, sorted(self._posted, key=_by_age))
        now = time.time()
        for message_id, message in [*self._posted.items()]:
            if now > message.metadata.created_at + message.metadata.ttl:
                del self._posted[message_id]
                self._receive(grid, message, Message(_EXPIRED, reply_to=message))
        letters, self._letters = self._letters, []
        return letters

    def _fetch(self, grid: Grid, ids: list[str]) -> None:
        for start in range(0, len(ids), AT_ONCE):
            for reply in grid.pull_messages(ids[start : start + AT_ONCE]):
                self._take_posted(grid, reply)

    def _take_posted(self, grid: Grid, reply: Message) -> bool:
        """Take in a reply if it is to what was posted; say whether it was."""
        message = self._posted.pop(reply.metadata.reply_to_message_id, None)
        if message is not None:
            self._receive(grid, message, reply)
        return message is not None

    def _receive(self, grid: Grid, message: Message, reply: Message) -> None:
        _refuse_dead_worker(grid, reply, message)
        self._letters.append(
            Letter(
                query=message,
                reply=_from_the_client(reply, message),
                seconds=time.time() - message.metadata.created_at,
            )
        )

    def exchange(
        self,
        grid: Grid,
        messages: list[Message],
        timeout: float,
        resend: Resend = lambda _: None,
        out: Pending | None = None,
        wanted: Callable[[int], bool] = lambda _: True,
        enough: Callable[[], bool] = lambda: False,
    ) -> Generator[Message, None, None]:
        """Push messages and yield their replies until all are in or time is up.

        Closing the iterator early abandons the replies that are still out. With ``out``
        it must not be closed: what has been fetched and not yielded would be lost.

        Parameters
        ----------
        messages : list of Message
            What is appended while the replies come in is sent as well.
        timeout : float
            Seconds.
        resend : callable
            Given a node whose message or reply was lost on the way, returns what it is
            to be sent instead; None if nothing, which is an error reply.
        out : dict of str to Message, optional
            Messages of before whose replies are waited for as well. What is still
            without one at the end is put there, for the next exchange.
        wanted : callable
            Given a node, whether its reply is wanted in this exchange; others, which go
            to ``out``, are not waited for.
        enough : callable
            Whether to wait no more, once all that has landed is yielded.

        Raises
        ------
        WorkerLostError
            If the simulation has lost a worker process.
        """
        sent = 0
        pending: Pending = {}
        resting: Pending = {}
        for message_id, message in ({} if out is None else out).items():
            dst = message.metadata.dst_node_id
            (pending if wanted(dst) else resting)[message_id] = message
        deadline = self._clock.monotonic() + timeout
        watch = self._watch if out is not None else Watch()
        # Half as long again as any reply took: in a steady fleet that is rare.
        watch.set_patience(1.5 * self._slowest)
        heard = time.monotonic()
        try:
            while pending or sent < len(messages):
                if added := messages[sent:]:
                    sent = len(messages)
                    # A list: deployments answer a generator with HTTP 500.
                    taken = set(grid.push_messages(added))
                    for message in added:
                        about = message.metadata
                        if about.message_id in taken:
                            held = pending if wanted(about.dst_node_id) else resting
                            held[about.message_id] = message
                        else:
                            # Its node has left, or it is too large for Flower.
                            yield Message(_NOT_SENT, reply_to=message)
                landed = False
                for message, reply in self._pull(grid, pending, watch):
                    landed, heard = True, time.monotonic()
                    about = message.metadata
                    took = time.time() - about.created_at
                    lost = _is_lost(reply) and took < about.ttl
                    anew = resend(about.dst_node_id) if lost else None
                    if anew is not None:
                        messages.append(anew)
                        continue
                    if not reply.has_error():
                        self._slowest = max(self._slowest, took)
                    _refuse_dead_worker(grid, reply, message)
                    yield _from_the_client(reply, message)
                if enough():
                    return
                if pending and not landed:
                    left = deadline - self._clock.monotonic()
                    if left < 0:
                        return
                    watch.look(grid, pending)
                    self._clock.sleep(pause(time.monotonic() - heard, left))
        finally:
            if out is None:
                self.abandon(pending | resting)
            else:
                out.clear()
                out |= {k: _address(m) for k, m in (pending | resting).items()}

    def abandon(self, messages: Pending) -> None:
        """Wait no more for replies; those that come are counted and dropped."""
        now = time.time()
        for message_id, message in messages.items():
            about = message.metadata
            # A reply may be on its way when the message dies.
            left = about.created_at + 2 * about.ttl - now
            self._abandoned[message_id] = time.monotonic() + left

    def _pull(
        self, grid: Grid, pending: dict[str, Message], watch: Watch
    ) -> Iterator[tuple[Message, Message]]:
        """Yield messages with their replies, and remove them from ``pending``."""
        now = time.monotonic()
        self._abandoned = {k: v for k, v in self._abandoned.items() if v > now}
        overtaken = watch.proven()
        ids = sorted(
            pending.keys()
            | self._abandoned.keys()
            | self._posted.keys()
            | watch.pings.keys(),
            key=_by_age,
        )
        for start in range(0, len(ids), AT_ONCE):
            for reply in grid.pull_messages(ids[start : start + AT_ONCE]):
                message_id = reply.metadata.reply_to_message_id
                if (message := pending.pop(message_id, None)) is not None:
                    yield message, reply
                elif watch.take(reply) or self._take_posted(grid, reply):
                    continue
                elif self._abandoned.pop(message_id, None) and not reply.has_error():
                    self.late += 1
        for message_id in overtaken - arriving(grid):
            if (message := pending.pop(message_id, None)) is not None:
                lost = Error(ErrorCode.MESSAGE_UNAVAILABLE, "lost on the way")
                yield message, Message(lost, reply_to=message)


def _address(message: Message) -> Message:
    """Return what the reply to a message needs; its content may be a model."""
    address = copy(message)
    address.content = RecordDict()
    return address


def _by_age(message_id: str) -> tuple[int, str]:
    """Sort the messages of the Grid in this process by age, others anyhow."""
    return len(message_id), message_id


def _is_lost(reply: Message) -> bool:
    """Whether a message or its reply no longer exists, by our word or Flower's."""
    return reply.has_error() and reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE


def _from_the_client(reply: Message, message: Message) -> Message:
    """Return a reply that names the client it is about.

    Errors that the SuperLink or the Grid answer in a client's place (it is offline, its
    message has expired) come from their node, in the group of no round.
    """
    if not reply.has_error():
        return reply
    return Message(reply.error, reply_to=message)


def _refuse_dead_worker(grid: Grid, reply: Message, message: Message) -> None:
    """Stop if a worker process of the simulation is gone.

    Only Flower itself speaks for a virtual node; a device can write what it likes.
    """
    reason = (reply.error.reason or "") if reply.has_error() else ""
    if not any(died in reason for died in _WORKER_DIED):
        return
    about = message.metadata.dst_node_id
    if any(node.node_id == about and is_virtual(node) for node in grid.get_nodes()):
        raise WorkerLostError(
            "a worker process of the simulation died, often for lack of memory or with "
            "its machine; Flower does not replace it, and nearly every client would "
            "fail from now on"
        )
