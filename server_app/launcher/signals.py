"""Ctrl-C while a run is on: one exception, then a cleaning up nothing interrupts."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP.

    Attributes
    ----------
    code : int
        Exit code of what is ended so, as shells have it: 130 after Ctrl-C, 143 after
        SIGTERM.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.code = 128 + number


class Signals:
    """Turns the first signal into one exception, and only where that is safe.

    Before :meth:`arm` and after the exception (or :meth:`disarm`) a signal is
    remembered but disturbs nothing: impatience must not interrupt the cleaning up.
    """

    def __init__(self) -> None:
        self._armed = False
        self._received = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python allows handlers in the main thread only; elsewhere it is not for us
        # that a signal is meant.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                # `nohup` made the launcher ignore SIGHUP: so it stays.
                hup_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
                if number != signal.SIGHUP or not hup_ignored:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        # Ray makes a plain one of what is raised while it waits.
        if kind is KeyboardInterrupt and self._received:
            raise Interrupted(self._received) from None

    def arm(self) -> None:
        """Let a signal raise, also one that came before."""
        self._armed = True
        if self._received:
            self._handle(self._received, None)

    def disarm(self) -> None:
        """Hold signals back from here on."""
        self._armed = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received = self._received or number
        if self._armed:
            self._armed = False
            raise Interrupted(number)
