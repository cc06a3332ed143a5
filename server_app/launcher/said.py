"""What is said of a run by whoever starts it, and the exit codes.

Not here: what the run says itself (``log``), and the line it moves in (``live``).
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from server_app.launcher.live import LiveLine
from server_app.launcher.log import is_quiet, told

if TYPE_CHECKING:  # other apps are launched without what it needs
    from server_app.launcher.begun import Begun

OK, FAILED, USAGE = 0, 1, 2


class Said:
    """What is said of a run by whoever starts it, at its begin and at its end.

    Parameters
    ----------
    command : sequence of str
        See :meth:`Begun.places`.
    quiet : bool
        Whether it is said only where the run ends before its time.
    """

    def __init__(self, command: Sequence[str], *, quiet: bool = False) -> None:
        self._command = command
        self._quiet = quiet or is_quiet()
        self._run: Begun | None = None
        self._live: LiveLine | None = None

    def begins(self, run: "Begun") -> None:
        """Say where the run is."""
        self._run = run
        if not self._quiet:
            told(run.places(self._command))
            self._live = LiveLine(run.path, int(run.config["num-rounds"]))
            self._live.start()

    def close(self) -> None:
        """Draw nothing any more."""
        if self._live is not None:
            self._live.stop()

    def complete(self) -> None:
        """Say where the run is, and how it is made longer."""
        self.close()
        if self._run is not None and not self._quiet:
            longer = 2 * int(self._run.config["num-rounds"])
            sys.stdout.flush()
            told(self._run.places(self._command, longer))

    def ends(self, message: str, code: int) -> int:
        """Say why the run ends before its time; return the exit code."""
        self.close()
        if self._run is not None and self._run.exists:
            message = f"{message}\n{self._run.places(self._command)}"
        return end(message, code)


def end(message: str, code: int) -> int:
    """Print a run's last word to standard error and return the exit code."""
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    return code
