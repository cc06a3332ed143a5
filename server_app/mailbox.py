"""Sending messages and taking in replies as they land, in any of Flower's modes."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping

from flwr.app import Error, Message
from flwr.serverapp import Grid

from server_app.restarts import Restarts

POLL_SECONDS = 0.1

# Replies are fetched a few at a time and merged before the next ones are: memory for
# these, not for the whole fleet's.
AT_ONCE = 8

# What Flower's simulation answers for a client whose worker process is gone.
_WORKER_DIED = "ray.exceptions.ActorDiedError"


class WorkerLostError(RuntimeError):
    """A worker process of the simulation died, and Flower does not replace it.

    The dead worker goes on being handed clients and fails each of them at once, faster
    than the living ones work: all rounds to come would be those few clients' alone.
    """


class Mailbox:
    """Pushes messages, yields their replies, and counts those that come too late.

    Attributes
    ----------
    late : int
        Replies discarded so far because nobody waited for them any more.
    """

    def __init__(self) -> None:
        self.late = 0
        self._abandoned: dict[str, float] = {}

    def exchange(
        self,
        grid: Grid,
        messages: list[Message],
        timeout: float,
        ask_anew: Callable[[int], Message | None] = lambda _: None,
    ) -> Generator[Message, None, None]:
        """Push messages and yield their replies until all are in or time is up.

        Closing the iterator early abandons the replies that are still out.

        Parameters
        ----------
        messages : list of Message
            What is appended while the replies come in is sent as well.
        timeout : float
            Seconds.
        ask_anew : callable
            Given a node that came back while a message was out, returns the same once
            more, None to go on waiting. A SuperNode that is started again no longer has
            what it had fetched, and Flower delivers a message once. If it has it after
            all, its first reply is the one that counts.

        Raises
        ------
        WorkerLostError
            If the simulation has lost a worker process.
        """
        sent: dict[str, Message] = {}
        pending: set[str] = set()
        deadline = time.monotonic() + timeout
        restarts = Restarts()
        repeated: set[str] = set()
        try:
            while pending or len(sent) < len(messages):
                if added := messages[len(sent) :]:
                    # A list: deployments answer a generator with HTTP 500.
                    taken = set(grid.push_messages(added))
                    sent |= {message.metadata.message_id: message for message in added}
                    pending |= taken
                    for message in added:
                        if message.metadata.message_id not in taken:
                            # Its node has left, or it is too large for Flower.
                            yield Message(Error(0, "not sent"), reply_to=message)
                landed = False
                for reply in self._pull(grid, pending):
                    landed = True
                    answered = reply.metadata.reply_to_message_id
                    if answered in repeated and reply.has_error():
                        continue
                    if repeated:
                        node = _node(sent[answered])
                        twins = {i for i in pending if _node(sent[i]) == node}
                        pending -= twins
                        self._abandoned |= dict.fromkeys(twins, deadline + timeout)
                    yield _from_the_client(reply, sent)
                if pending and not landed:
                    if time.monotonic() > deadline:
                        return
                    waited_for = [sent[i] for i in pending - repeated]
                    for lost in restarts.lost(grid, waited_for):
                        if (anew := ask_anew(_node(lost))) is not None:
                            messages.append(anew)
                            repeated.add(lost.metadata.message_id)
                    time.sleep(POLL_SECONDS)
        finally:
            # A message lives as long as its ttl, which is the timeout of its exchange.
            self._abandoned |= dict.fromkeys(pending, deadline + timeout)

    def _pull(self, grid: Grid, pending: set[str]) -> Iterator[Message]:
        now = time.monotonic()
        self._abandoned = {k: v for k, v in self._abandoned.items() if v > now}
        ids = sorted(pending | self._abandoned.keys(), key=lambda i: (len(i), i))
        for start in range(0, len(ids), AT_ONCE):
            for reply in grid.pull_messages(ids[start : start + AT_ONCE]):
                message_id = reply.metadata.reply_to_message_id
                if message_id in pending:
                    pending.remove(message_id)
                    yield reply
                elif self._abandoned.pop(message_id, None) and not reply.has_error():
                    self.late += 1


def _node(message: Message) -> int:
    return message.metadata.dst_node_id


def _from_the_client(reply: Message, sent: Mapping[str, Message]) -> Message:
    """Return a reply that names the client it is about.

    Errors that the SuperLink or the Grid answer in a client's place (it is offline, its
    message has expired) come from their node, in the group of no round.
    """
    if not reply.has_error():
        return reply
    if _WORKER_DIED in (reply.error.reason or ""):
        raise WorkerLostError(
            "a worker process of the simulation died, often for lack of memory; Flower "
            "does not replace it, and nearly every client would fail from now on"
        )
    return Message(reply.error, reply_to=sent[reply.metadata.reply_to_message_id])
