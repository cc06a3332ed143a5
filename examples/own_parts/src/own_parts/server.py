"""What the server runs: a score for each expert at each client, and a callback."""

from typing import Any

from server_app.callbacks.hooks import Callback
from server_app.fitness import Evidence


def cautious(evidence: Evidence) -> Any:
    """Return accuracies as if five more samples had been wrong: few may be luck."""
    return evidence.accuracy * evidence.samples / (evidence.samples + 5)


class LoadTable(Callback):
    """Writes who was used how often: a line of ``loads.csv`` for every round."""

    def on_run_begin(self, run: Any, strategy: Any) -> None:
        """Note where the run's files are."""
        self.table = run.path / "loads.csv"

    def on_round_end(self, record: Any, strategy: Any) -> None:
        """Add the round and the number of clients that held each expert."""
        with self.table.open("a") as file:
            print(record.round, *record.load, sep=",", file=file)
