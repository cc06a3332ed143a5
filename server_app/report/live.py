"""Rewriting the report while the run goes on, at a bounded cost."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from common.files import atomic_write
from server_app.report.pages import run_page
from server_app.report.run_data import ReportError, read_run

logger = logging.getLogger("flwr.expertfleet")

FILE = "report.html"
SHARE = 0.02
"""Most of the run's time that rewriting may take."""


class LiveReport:
    """Writes ``report.html`` of one run.

    Reading a run takes longer the more rounds it has. So the page is rewritten after a
    round only if the last time has been paid for: with rounds of a minute that is every
    round, with rounds of a tenth of a second every few seconds.

    Parameters
    ----------
    folder : Path
        The run's directory.
    clock : callable
        Seconds that never go back.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._next = float("-inf")

    def refresh(self) -> None:
        """Rewrite the page if it is due."""
        if self._clock() >= self._next:
            self.write()

    def write(self) -> None:
        """Rewrite the page now; a page that cannot be written ends no training."""
        started = self._clock()
        try:
            html = run_page(read_run(self._folder))
            with atomic_write(self._folder / FILE) as file:
                file.write(html.encode())
        except (ReportError, OSError) as error:
            logger.warning("%s is not up to date: %s", FILE, error)
        ended = self._clock()
        self._next = ended + (ended - started) / SHARE
