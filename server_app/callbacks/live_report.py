"""Rewriting the report while the run goes on, at a bounded cost."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.settings import Settings
from server_app.callbacks.hooks import Callback, RunStart
from server_app.contract import Algorithm
from server_app.report.pages import FILE, run_page, write_page
from server_app.report.run_data import read_run

SHARE = 0.02
"""Most of the run's time that rewriting may take."""


class LiveReport(Callback):
    """Writes ``report.html`` of one run.

    Reading a run takes longer the more rounds it has. So the page is rewritten after a
    round only if the last time has been paid for: with rounds of a minute that is every
    round, with rounds of a tenth of a second every few seconds.

    Parameters
    ----------
    settings : Settings
    clock : callable
        Seconds that never go back.
    """

    tried_again = True

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(settings)
        self._clock = clock
        self._next = float("-inf")
        self._folder = Path()
        self._rounds = False

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Remember where the run is."""
        self._folder, self._rounds = run.path, bool(run.completed)

    def on_round_end(self, record: Any, strategy: Algorithm) -> None:
        """Rewrite the page if it is due."""
        self._rounds = True
        if self._clock() >= self._next:
            self._write()

    def on_run_end(self) -> None:
        """Rewrite the page; a run without a round has none."""
        if self._rounds:
            self._write()

    def _write(self) -> None:
        # What fails took its time all the same.
        started = self._clock()
        try:
            write_page(run_page(read_run(self._folder)), self._folder / FILE)
        finally:
            ended = self._clock()
            self._next = ended + (ended - started) / SHARE
