"""The matrices of a run that callbacks keep: fitness, round by round, and confusion.

How fitness lies in its file, and how it is read, is in
``server_app.run_folder.matrices``. Nothing here is needed to go on: of a file that is
damaged only the history behind the damage is lost.
"""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.files import atomic_write
from common.settings import Settings
from server_app.callbacks.hooks import Callback, RunStart
from server_app.contract import Algorithm
from server_app.rounds.record import RoundRecord
from server_app.run_folder.matrices import FitnessFile
from server_app.run_folder.run_files import CONFUSION


class FitnessRows(Callback):
    """Appends to ``fitness.rows``, of a strategy that has a ``fitness_matrix``."""

    tried_again = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._run = RunStart(path=Path(), name="")
        self._file = FitnessFile(Path())

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Go on after the rounds before; the newest may never have been written."""
        self._run, self._file = run, FitnessFile(run.path)
        if run.history:
            self._file.cut(run.completed)
            self._note(run.completed, len(run.history[-1]["load"]), strategy)

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Add the fitness after a round."""
        self._note(record.round, len(record.load), strategy)

    def _note(self, server_round: int, experts: int, strategy: Algorithm) -> None:
        if (given := strategy.fitness_matrix()) is None:
            return
        found, clients = _as_matrix(given), len(self._run.clients())
        if len(found) > clients or found.shape[1] != experts:
            raise ValueError(
                f"fitness_matrix() is of shape {found.shape}, expected "
                f"{(clients, experts)}"
            )
        self._file.append(server_round, found)


class ConfusionMatrix(Callback):
    """Writes ``confusion.npz``: the newest one, of up to ``MOST_SQUARE`` classes."""

    tried_again = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._path = Path()

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Remember where it is."""
        self._path = run.path / CONFUSION

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Write that of a round, if it was measured."""
        if record.confusion is None:
            return
        with atomic_write(self._path) as file:
            np.savez_compressed(
                file, confusion=record.confusion, round=np.int64(record.round)
            )


def _as_matrix(values: ArrayLike) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        found = np.array(values, dtype=np.float32)
    if found.ndim != 2:
        raise ValueError(f"fitness has {found.ndim} axes, expected 2")
    return found
