"""One live line on a terminal: how far a run is and how long it still takes.

It is read from what the ServerApp writes into the run's directory, so it is the same
for a run in this process and for one of Flower's. Where nobody watches, on a file, a
pipe or a dumb terminal, there is none.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from server_app.run_folder.run_files import PROGRESS

_LEAST_ROUNDS = 0.5
"""What has to be done before it is said how long the rest takes."""


class LiveLine:
    """Draws the line below all that is printed meanwhile.

    Parameters
    ----------
    folder : Path
        The run's directory.
    num_rounds : int
    clock : callable
        Seconds that never go back.
    """

    def __init__(
        self, folder: Path, num_rounds: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = folder / PROGRESS
        self._num_rounds = num_rounds
        self._clock = clock
        self._first: tuple[float, float] | None = None
        self._text = "starting"
        self._live: Live | None = None

    def start(self) -> None:
        """Begin to draw, if somebody watches."""
        # Not rich's word for it: FORCE_COLOR makes a terminal of any pipe.
        if not sys.stderr.isatty() or Console(stderr=True).is_dumb_terminal:
            return
        self._live = Live(
            console=Console(stderr=True, soft_wrap=True),
            get_renderable=lambda: Text(self.text(), no_wrap=True, overflow="ellipsis"),
            transient=True,
            # A table that goes into a file goes there all the same.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start()

    def stop(self) -> None:
        """Remove the line; what was printed stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def text(self) -> str:
        """Return the line as it is now."""
        try:
            seen = json.loads(self._file.read_bytes())
            number, answers, asked = seen["round"], seen["answers"], seen["asked"]
        except (OSError, ValueError):  # none yet, or being written
            return self._text
        answers = min(answers, asked)
        now = self._clock()
        done = number - 1 + (answers / asked if asked else 0.0)
        if self._first is None:
            self._first = (now, done)
        self._text = (
            f"round {number} of {self._num_rounds}, replies {answers}/{asked}"
            f"{self._left(now, done)}"
        )
        return self._text

    def _left(self, now: float, done: float) -> str:
        began, before = self._first or (now, done)
        if done - before < _LEAST_ROUNDS:
            return ""
        seconds = (now - began) / (done - before) * max(0.0, self._num_rounds - done)
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f", {hours}:{minutes:02}:{rest:02} left"
