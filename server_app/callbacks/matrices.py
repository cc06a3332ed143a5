"""The matrices of a run: who held what and fitness, over all its rounds; confusion.

``assignments.npz`` has ``assignments`` (T, C, E), ``fitness.npz`` has ``fitness``
(T, C, E); both have ``clients``, names in the order of the rows, and ``rounds``, the
rounds in the order of the first axis. Rows follow the registry of the fleet: a client
keeps its row, also if it comes late, rests or is not sampled. Nothing here is needed to
go on: assignments are made again from the lines of ``metrics.jsonl``, and of a fitness
file that is damaged only its history is lost.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.files import atomic_write
from common.settings import Settings
from server_app.callbacks.hooks import Callback, RunStart
from server_app.contract import Algorithm
from server_app.rounds.record import RoundRecord
from server_app.run_folder.run_files import CONFUSION

FITNESS = "fitness.npz"


class _Matrices(Callback):
    """One matrix a round, all of them in one file that is written anew."""

    tried_again = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.run = RunStart(path=Path(), name="")
        self.matrices: dict[int, NDArray[Any]] = {}

    def save(self, name: str, clients: Sequence[str], unknown: float) -> None:
        """Write ``<name>.npz``; a pair nobody knew of yet is ``unknown``."""
        found = list(self.matrices.values())
        stacked = np.full(
            (len(found), len(clients), found[0].shape[1]), unknown, found[0].dtype
        )
        for rows, matrix in zip(stacked, found, strict=True):
            rows[: len(matrix)] = matrix
        arrays: dict[str, Any] = {
            name: stacked,
            "clients": np.array(clients, dtype=np.str_),
            "rounds": np.array(list(self.matrices), dtype=np.int64),
        }
        with atomic_write(self.run.path / f"{name}.npz") as file:
            # Written anew every round: compressing would take 25 times as long.
            np.savez(file, **arrays)


class AssignmentMatrices(_Matrices):
    """Writes ``assignments.npz``."""

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Make the rounds that are done again from their lines."""
        self.run = run
        for line in run.history:
            clients = self._note(line)
        if run.history:
            self.save("assignments", clients, unknown=False)

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Add who held what in a round."""
        self.save("assignments", self._note(record.to_json()), unknown=False)

    def _note(self, line: Mapping[str, Any]) -> list[str]:
        """Remember a round; return the clients by row."""
        rows = {name: row for row, name in enumerate(self.run.clients())}
        for client in line["clients"]:
            rows.setdefault(client["client"], len(rows))
        held = np.zeros((len(rows), len(line["load"])), dtype=np.bool_)
        for client in line["clients"]:
            held[rows[client["client"]], client["experts"]] = True
        self.matrices[line["round"]] = held
        return list(rows)


class FitnessMatrices(_Matrices):
    """Writes ``fitness.npz``, of a strategy that has a ``fitness_matrix``."""

    def on_run_begin(self, run: RunStart, strategy: Algorithm) -> None:
        """Read what is there; of the newest round it may never have been written."""
        self.run = run
        if not run.history:
            return
        try:
            self._restore()
        finally:
            self._note(run.completed, len(run.history[-1]["load"]), strategy)

    def on_round_end(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Add the fitness after a round."""
        self._note(record.round, len(record.load), strategy)

    def _restore(self) -> None:
        path, clients = self.run.path / FITNESS, self.run.clients()
        if not path.exists():
            return
        with np.load(path, allow_pickle=False) as file:
            fitness, numbers = file["fitness"], file["rounds"].tolist()
            stored = [str(name) for name in file["clients"]]
        if any(a != b for a, b in zip(stored, clients, strict=False)):
            raise ValueError("its clients are others than the run's")
        for number, matrix in zip(numbers, fitness, strict=True):
            if number <= self.run.completed:
                self.matrices[int(number)] = _as_matrix(matrix[: len(clients)])

    def _note(self, server_round: int, experts: int, strategy: Algorithm) -> None:
        if (given := strategy.fitness_matrix()) is None:
            return
        found, clients = _as_matrix(given), self.run.clients()
        widths = {experts, *(m.shape[1] for m in self.matrices.values())}
        if len(found) > len(clients) or widths != {found.shape[1]}:
            raise ValueError(
                f"fitness_matrix() is of shape {found.shape}, expected "
                f"{(len(clients), *sorted(widths))}"
            )
        self.matrices[server_round] = found
        self.save("fitness", clients, unknown=np.nan)


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
