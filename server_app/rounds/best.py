"""The best round so far, by the measure a run watches, and what follows if all is lost.

``stop-measure`` and ``stop-mode`` say what is watched, by early stopping
(``server_app.callbacks.early_stopping``) and here; ``on-collapse`` says what follows.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from common.errors import SettingsError, nearest
from common.settings.run_settings import RunSettings
from server_app.rounds.outcome import mostly_refused
from server_app.rounds.record import ACCURACIES, MEASURES, OWN, RoundRecord
from server_app.run_folder.folder import RunFolder
from server_app.run_folder.run_files import finite

logger = logging.getLogger("flwr.expertfleet")

PATIENCE = 3
"""Measured rounds in a row that a collapse takes: one swing of clients is none."""

LITTLE = 0.25
"""Share of what there is above guessing below which a model has nothing to lose yet."""


class Best:
    """The best value of one measure.

    Parameters
    ----------
    measure : str
        A number of the run log.
    mode : {"max", "min"}

    Attributes
    ----------
    value : float
        NaN before the first.
    round : int
        In which it was measured; 0 before the first.
    since : int
        Rounds measured since.

    Raises
    ------
    SettingsError
        If no round has a measure of that name.
    """

    def __init__(self, measure: str, mode: str) -> None:
        if measure not in MEASURES and not measure.startswith(OWN):
            raise SettingsError(
                f"stop-measure = {measure!r} is not allowed: choose from "
                f"{', '.join(MEASURES)} or {OWN}NAME{nearest(measure, MEASURES)}"
            )
        self.measure, self._sign = measure, 1 if mode == "max" else -1
        self.value, self.round, self.since = math.nan, 0, 0

    def take(self, line: Mapping[str, Any]) -> float:
        """Take in the line of a round; return its value, NaN if it has none."""
        value = finite(line.get(self.measure))
        if not self.round and not math.isnan(value):
            better = True
        else:
            better = self._sign * (value - self.value) > 0
        if better:
            self.value, self.round, self.since = value, line["round"], 0
        elif not math.isnan(value):
            self.since += 1
        return value

    def lost(self, value: float, floor: float) -> bool:
        """Whether a value has lost more than half of the best above a floor.

        Where less is better there is no floor: it has more than doubled.
        """
        if self._sign < 0:
            return 0 < 2 * self.value < value
        known = self.value - floor
        if not known > 0 or (floor and known < LITTLE * (1 - floor)):
            return False
        return value < floor + known / 2


class Collapse:
    """Tells when a model has collapsed, and what follows (``on-collapse``).

    It has lost what it knew, or clients refuse it. Replies that break the rules are
    refused one by one. Where most are, it is rather the model they came from: a few
    accepted replies have made it one that no client can train.

    Parameters
    ----------
    run : RunSettings
    num_classes : int
        An accuracy is held against guessing among them.
    by_devices : bool
        Whether devices measure the server's predictor: then ``fleet`` is its accuracy.

    Attributes
    ----------
    best : Best
    stopped : str
        Why no round follows, where that is what follows; else "".
    """

    def __init__(self, run: RunSettings, num_classes: int, *, by_devices: bool) -> None:
        self.stopped = ""
        self._follows = run.on_collapse
        measure = run.stop_measure
        if by_devices and measure == "server_global":
            measure = "fleet"
        self.best = Best(measure, run.stop_mode)
        self._floor = 1 / num_classes if measure in ACCURACIES else 0.0
        self._low = 0

    def judge(self, line: Mapping[str, Any]) -> str:
        """Take in the line of a round; return what has collapsed, "" if nothing."""
        refused, accepted = line["refused"], sum(c["replied"] for c in line["clients"])
        value = self.best.take(line)
        if not math.isnan(value):
            self._low = self._low + 1 if self.best.lost(value, self._floor) else 0
        if why := mostly_refused(refused, accepted):
            return why
        if self._low < PATIENCE:
            return ""
        self._low = 0
        return (
            f"{self.best.measure} was {value:.4g} and as low {PATIENCE} times in a "
            f"row, {self.best.value:.4g} in round {self.best.round}"
        )

    def look_after(
        self, record: RoundRecord, folder: RunFolder | None
    ) -> dict[str, Any] | None:
        """Judge a round; return the state to go back to, if that is what follows.

        The record notes both, unless the run ends: then ``stopped`` says why.
        """
        if not (why := self.judge(record.to_json())):
            return None
        if self._follows == "stop":
            self.stopped = f"collapsed: {why}"
            logger.error("no round follows: %s", why)
            return None
        state = None
        if self._follows == "go-on":
            then = "on-collapse is go-on"
        elif (state := folder.best() if folder else None) is None:
            then = "no best round is kept to go back to"
        else:
            then = f"back to the model of round {state['completed']}"
        record.notes.append(f"collapsed: {why}; {then}")
        return state

    def has_ended_run(self) -> bool:
        """Whether no round follows; one that is resumed may have it otherwise."""
        return bool(self.stopped) and self._follows == "stop"

    def keep_best(self, completed: int, folder: RunFolder) -> None:
        """Keep the checkpoint of the round just done if it is the best so far."""
        if self.best.round == completed > 0:
            folder.keep_best(completed)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on."""
        best = self.best
        return {
            "measure": best.measure,
            "best": [best.value, best.round, best.since] if best.round else None,
            "low": self._low,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned, if the same is watched as then."""
        if state["measure"] == self.best.measure and state["best"]:
            self.best.value, self.best.round, self.best.since = state["best"]
            self._low = state["low"]
