"""How far an order has come down, or a reply has gone up, in words for the log.

How large an object is, is known when it has moved. What is left is taken to be as large
as the largest so far: arrays are cut into equal pieces.
"""

import time
from collections.abc import Callable, Collection

QUIET_SECONDS = 10.0
"""Between two lines; what is done sooner is not spoken of."""

QUIET_SHARE = 0.05
"""Of the whole, which has to move between two lines."""

MB = 1e6


class Progress:
    """One message on its way.

    Parameters
    ----------
    doing, done : str
        As in "uploading" and "uploaded".
    pieces : collection of str
        Ids of those objects that will move and are pieces of arrays.
    say : callable
        Takes a line.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        doing: str,
        done: str,
        pieces: Collection[str],
        say: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doing, self._done = doing, done
        self._left = set(pieces)
        self._say, self._clock = say, clock
        self._began = self._said_at = 0.0
        self._moved = self._largest = 0
        self._said_share = 0.0

    def begin(self) -> None:
        """Take note of the time when the first object sets out."""
        if not self._began:
            self._began = self._said_at = self._clock()

    def moved(self, piece: str, nbytes: int) -> None:
        """Take note of an object that has moved whole."""
        if piece not in self._left:
            return
        self._left.remove(piece)
        self._moved += nbytes
        self._largest = max(self._largest, nbytes)
        now = self._clock()
        seconds = now - self._began
        if not self._left:
            if seconds >= QUIET_SECONDS:
                rate = self._moved / seconds / 1e3
                self._say(
                    f"{self._done} {self._moved / MB:.1f} MB in {seconds:.0f} s "
                    f"({rate:.0f} kB/s)"
                )
            return
        whole = self._moved + len(self._left) * self._largest
        share = self._moved / whole
        if now - self._said_at < QUIET_SECONDS or share - self._said_share < (
            QUIET_SHARE
        ):
            return
        self._said_at, self._said_share = now, share
        left = seconds * (1 / share - 1)
        self._say(
            f"{self._doing} {self._moved / MB:.1f} of {whole / MB:.1f} MB, "
            f"{left:.0f} s left"
        )
