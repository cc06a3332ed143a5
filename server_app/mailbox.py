"""Sending messages and taking in replies as they land, in any of Flower's modes."""

import time
from collections.abc import Generator, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

POLL_SECONDS = 0.1

# Replies are fetched a few at a time and merged before the next ones are: memory for
# these, not for the whole fleet's.
AT_ONCE = 8


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
        self, grid: Grid, messages: list[Message], timeout: float
    ) -> Generator[Message, None, None]:
        """Push messages and yield their replies until all are in or time is up.

        Closing the iterator early abandons the replies that are still out.

        Parameters
        ----------
        messages : list of Message
            A list: deployments answer a generator with HTTP 500.
        timeout : float
            Seconds.
        """
        if not messages:
            return
        pending = set(grid.push_messages(messages))
        deadline = time.monotonic() + timeout
        try:
            while pending:
                landed = False
                for reply in self._pull(grid, pending):
                    landed = True
                    yield reply
                if pending and not landed:
                    if time.monotonic() > deadline:
                        return
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
                elif self._abandoned.pop(message_id, None):
                    self.late += 1
