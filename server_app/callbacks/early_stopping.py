"""Ends a run when a measure has not become better for some rounds.

``callbacks="early-stopping" stop-measure="client_local" stop-patience=5``. Rounds in
which nothing was measured do not count. What was best is counted again from the run's
own record when it is resumed: a run that was stopped stays so unless these settings
are others.
"""

from collections.abc import Mapping
from typing import Any

from common.data import FOLDERS, parse_partition
from common.errors import SettingsError
from common.settings import Settings
from server_app.callbacks.hooks import Callback, RunStart
from server_app.contract import Algorithm
from server_app.rounds.best import Best
from server_app.rounds.record import RoundRecord


class EarlyStopping(Callback):
    """Watches ``stop-measure``; ``stop-mode`` says whether more is better.

    Raises
    ------
    SettingsError
        If no round has a measure of that name, or none of this run will.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        measure = settings.run.stop_measure
        self._best = Best(measure, settings.run.stop_mode)
        if why := _never_measured(measure, settings):
            raise SettingsError(
                f"stop-measure = {measure!r} is not allowed here: {why}"
            )

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> str | None:
        """Go through the rounds that are done."""
        why = None
        for line in run.history:
            why = self._judge(line)
        return why

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> str | None:
        """Say whether it was one too many."""
        return self._judge(record.to_json())

    def _judge(self, line: Mapping[str, Any]) -> str | None:
        best = self._best
        best.take(line)
        if best.since < self.settings.run.stop_patience:
            return None
        return (
            f"{best.measure} was best in round {best.round} "
            f"({best.value:g}); measured {best.since} times since"
        )


def _never_measured(measure: str, settings: Settings) -> str:
    """Return why a run never has a measure, and what it has; "" if it may have it."""
    data = settings.data
    factors = data.partition != FOLDERS and parse_partition(data.partition).factors
    if measure == "fleet" and (not data.task or data.test_data):
        return "the server has a test set of its own; choose server_global"
    if measure == "server_global" and data.task and not data.test_data:
        return "the server has no test set (test-data); choose fleet"
    if measure in ("served", "worst_group") and not factors:
        return f"partition = {data.partition!r} has no device that differs"
    if measure == "epsilon" and settings.privacy.privacy != "central":
        return 'without privacy = "central" there is none'
    if measure == "client_global" and data.task:
        return "with task, every device has other data; choose client_local"
    return ""
