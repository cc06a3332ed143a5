"""The line a run prints per round, what is to be said of its clients, and recall.

Recall by class is said at the end: a class that is never found hardly shows in an
accuracy where it is rare.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.settings import Settings
from server_app.callbacks.hooks import Callback, RunStart
from server_app.contract import Algorithm
from server_app.fleet.reasons import grouped, named
from server_app.rounds.record import RoundRecord
from server_app.run_folder.run_files import class_names, read_facts

logger = logging.getLogger("flwr.expertfleet")
table = logger.getChild("table")

HEADER_EVERY = 20
"""Rounds between two headers of the table."""
MOST_SHOWN = 16
"""Devices that get a line of their own in the log of each round."""
MOST_CLASSES = 12
"""Classes that are named at the end, those found worst first."""
RECALLS = {
    "recall": ("balanced", "the server's predictor"),
    "local_recall": ("local_balanced", "the clients' models on what each holds out"),
}
"""Recall by class, its mean, and whose it is."""


class Table(Callback):
    """Prints every round."""

    tried_again = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._shown = 0
        self._folder = Path()
        self._newest: dict[str, Mapping[str, Any]] = {}

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Remember where the run is, and what was measured of it before."""
        self._folder = run.path
        for line in run.history:
            self._note(line)

    def on_run_end(self) -> None:
        """Print the newest recall by class."""
        for name, line in self._newest.items():
            logger.info("%s", self._by_class(name, line))

    def _note(self, line: Mapping[str, Any]) -> None:
        self._newest |= {name: line for name in RECALLS if line.get(name)}

    def _by_class(self, name: str, line: Mapping[str, Any]) -> str:
        """Return recall by class in one line, the worst first."""
        mean, whose = RECALLS[name]
        shares = line[name]
        names = class_names(read_facts(self._folder), len(shares))
        pairs = zip(shares, names, strict=True)
        known = sorted(pair for pair in pairs if pair[0] is not None)
        shown = ", ".join(f"{name} {share:.4f}" for share, name in known[:MOST_CLASSES])
        more = "" if len(known) <= MOST_CLASSES else f" (the worst of {len(known)})"
        return (
            f"recall of {whose}, round {line['round']}: {shown}{more}; "
            f"balanced accuracy {line[mean]:.4f}"
        )

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Print a round."""
        self._note(record.to_json())
        if self._shown % HEADER_EVERY == 0:
            table.info("%s", record.line(header=True))
        self._shown += 1
        table.info("%s", record.line())
        status = str((record.solver or {}).get("status", ""))
        if status not in ("", "-", "optimal"):
            logger.info("      solver: %s", status)
        # Of a small fleet one wants to see every device; virtual clients have no peak.
        devices = [each for each in record.clients if each.memory_peak is not None]
        for device in devices[:MOST_SHOWN]:
            logger.info("      %s", device.line())
        if record.fleet is not None:
            logger.info(
                "      measured by %d devices (%s), %.2f MB sent and received",
                len(record.fleet_clients or ()),
                named(record.fleet_clients or []),
                record.fleet_bytes / 1e6,
            )
        for note in record.notes:
            logger.info("      %s", note)
        for line in grouped(record.rejected):
            logger.info("      not merged: %s", line)
        if record.late:
            logger.info("      %d late replies discarded", record.late)
