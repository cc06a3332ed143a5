"""The matrices of a run over its rounds: who held what, and fitness.

>>> from pathlib import Path
>>> from server_app.run_folder.matrices import read_assignments, read_fitness
>>> held = read_assignments(Path("results/RUN"))        # doctest: +SKIP
>>> held.values.shape, held.rounds, held.clients        # doctest: +SKIP

Who held what is in the lines of ``metrics.jsonl``, and nowhere else. Fitness is in
``fitness.rows``, to which every round appends what it changed, so that a round costs as
much as it changed, whatever came before. Of each round there are two NumPy arrays, as
``numpy.save`` writes them one after another into one file: ``[round, clients]``, then
the rows of fitness that are not what they were, with the fields ``row`` and
``fitness``, shape (E,), float32. A record that was cut is passed over, and cut off when
the run goes on. Rows follow the registry of the fleet, as the clients in ``run.json``
do: a client keeps its row, also if it comes late, rests or is not sampled.

Runs of earlier versions have ``fitness.npz``, which is read as well.
"""

import io
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from common.files import durable_append
from common.text import one_line
from server_app.run_folder.run_files import (
    METRICS,
    RunFileError,
    read_facts,
    read_metrics,
)

logger = logging.getLogger("flwr.expertfleet")

FITNESS = "fitness.rows"
EARLIER = "fitness.npz"

Matrix = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RunMatrices:
    """A matrix of clients and experts for each of several rounds.

    Attributes
    ----------
    values : ndarray, shape (T, C, E)
    rounds : list of int, length T
    clients : list of str, length C
    """

    values: NDArray[Any]
    rounds: list[int]
    clients: list[str]


def read_assignments(folder: Path) -> RunMatrices:
    """Return who held what in every round of a run, as bool.

    Raises
    ------
    RunFileError
        If there is no run in the folder, or not a single finished round.
    """
    facts, (lines, _) = read_facts(folder), read_metrics(folder)
    if not lines:
        raise RunFileError(f"{folder / METRICS} has no finished round yet")
    seen = (client["client"] for line in lines for client in line["clients"])
    rows = {
        name: row for row, name in enumerate(dict.fromkeys([*_known(facts), *seen]))
    }
    experts = max(len(line["load"]) for line in lines)
    held = np.zeros((len(lines), len(rows), experts), dtype=np.bool_)
    for matrix, line in zip(held, lines, strict=True):
        for client in line["clients"]:
            matrix[rows[client["client"]], client["experts"]] = True
    numbers = [int(line["round"]) for line in lines]
    return RunMatrices(values=held, rounds=numbers, clients=[*rows])


def read_fitness(folder: Path) -> RunMatrices:
    """Return the fitness after every round of a run, as float32.

    NaN where a client was not known yet. All of it at once: where that is too much, go
    through :func:`replay`.

    Raises
    ------
    RunFileError
        If there is no run in the folder, or no fitness that can be read.
    """
    rounds, found = [], []
    facts = read_facts(folder)
    for number, matrix in replay(folder):
        rounds.append(number)
        found.append(matrix.copy())
    if not found:
        raise RunFileError(f"{folder} has no {FITNESS} with a whole round")
    shape = (len(found), *found[-1].shape)
    values = np.full(shape, np.nan, dtype=np.float32)
    for rows, matrix in zip(values, found, strict=True):
        rows[: len(matrix)] = matrix
    names = names_of_rows(facts, shape[1])
    return RunMatrices(values=values, rounds=rounds, clients=names)


def names_of_rows(facts: Mapping[str, Any], count: int) -> list[str]:
    """Return what the clients in rows 0, 1, ... are called, as ``run.json`` says it."""
    names = [one_line(name, 40) for name in _known(facts)[:count]]
    return [*names, *(f"row {row}" for row in range(len(names), count))]


def replay(folder: Path) -> Iterator[tuple[int, Matrix]]:
    """Yield each round and the fitness after it, shape (C, E).

    The matrix is changed by the next round: copy what is to be kept. What is damaged
    ends it.

    Raises
    ------
    RunFileError
        If a file of an earlier version cannot be read.
    OSError
        If the file is there and cannot be read.
    """
    if not (folder / FITNESS).exists():
        yield from _replay_earlier(folder / EARLIER)
        return
    for number, matrix, _ in _replay(folder / FITNESS):
        yield number, matrix


def rounds_of(folder: Path) -> tuple[list[int], bool]:
    """Return the rounds of :func:`replay`, and whether that is all there is."""
    path = folder / FITNESS
    if not path.exists():
        return [number for number, _ in replay(folder)], True
    found = [(number, end) for number, _, end in _replay(path)]
    whole = bool(found) and found[-1][1] == path.stat().st_size
    return [number for number, _ in found], whole


class FitnessFile:
    """Appends to the ``fitness.rows`` of one run.

    Parameters
    ----------
    folder : Path
        The run's directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest: Matrix | None = None

    def cut(self, first: int) -> None:
        """Drop what there is of a round and of all after it, and what is damaged.

        A file of an earlier version is taken over.

        Raises
        ------
        OSError, RunFileError
            If the file is there and cannot be read or cut.
        """
        self._newest, number, end = None, 0, 0
        path, earlier = self._folder / FITNESS, self._folder / EARLIER
        if path.exists():
            for number, _, after in _replay(path):
                if number >= first:
                    break
                end = after
            if number < first and end < path.stat().st_size:
                logger.warning("%s is damaged after round %d", FITNESS, number)
            os.truncate(path, end)
        elif earlier.exists():
            for number, matrix in _replay_earlier(earlier):
                if number < first:
                    self.append(number, matrix)
            earlier.unlink()

    def append(self, server_round: int, fitness: Matrix) -> None:
        """Add the fitness after a round: the rows that have changed.

        Raises
        ------
        ValueError
            If there are other columns than before.
        OSError
            If it cannot be written. The next round has what this one changed, then.
        """
        before = self._newest
        if before is None:
            before = np.zeros((0, fitness.shape[1]), dtype=np.float32)
        known, experts = before.shape
        if fitness.shape[1] != experts:
            raise ValueError(f"shape {fitness.shape} follows {before.shape}")
        if gone := max(0, known - len(fitness)):
            # Back at an earlier round, it knows nothing of who has come since.
            nothing = np.full((gone, experts), np.nan, dtype=np.float32)
            fitness = np.concatenate([fitness, nothing])
        changed = np.ones(len(fitness), dtype=np.bool_)
        # By their bits: NaN is no change of NaN.
        same = fitness[:known].view(np.uint32) == before.view(np.uint32)
        changed[:known] = ~same.all(axis=1)
        rows = np.zeros(int(changed.sum()), dtype=_row(experts))
        rows["row"], rows["fitness"] = np.flatnonzero(changed), fitness[changed]
        record = io.BytesIO()
        np.save(record, np.array([server_round, len(fitness)], dtype=np.int64))
        np.save(record, rows)
        durable_append(self._folder / FITNESS, record.getvalue())
        self._newest = fitness.copy()


def _row(experts: int) -> np.dtype[Any]:
    return np.dtype([("row", "<u4"), ("fitness", "<f4", (experts,))])


def _replay(path: Path) -> Iterator[tuple[int, Matrix, int]]:
    """Yield round, fitness after it, and where in the file its record ends."""
    matrix: Matrix | None = None
    with path.open("rb") as file:
        while True:
            try:
                number, clients = npy.read_array(file, allow_pickle=False).tolist()
                rows = npy.read_array(file, allow_pickle=False)
                matrix = _changed(matrix, clients, rows)
            except OSError:
                raise
            except Exception:  # what is cut or damaged makes NumPy raise all kinds
                return
            yield number, matrix, file.tell()


def _changed(matrix: Matrix | None, clients: int, rows: NDArray[Any]) -> Matrix:
    """Return the matrix of so many clients with these rows, changed in place."""
    if matrix is None:
        matrix = np.zeros((0, rows["fitness"].shape[1]), dtype=np.float32)
    if more := clients - len(matrix):
        new = np.full((more, matrix.shape[1]), np.nan, dtype=np.float32)
        matrix = np.concatenate([matrix, new])
    matrix[rows["row"]] = rows["fitness"]
    return matrix


def _replay_earlier(path: Path) -> Iterator[tuple[int, Matrix]]:
    """Yield what the file of an earlier version has, if there is one."""
    if not path.exists():
        return
    try:
        with np.load(path, allow_pickle=False) as file:
            numbers, fitness = file["rounds"].tolist(), file["fitness"]
        pairs = [*zip(numbers, fitness.astype(np.float32), strict=True)]
    except Exception as error:  # zip, zlib, NumPy: each has errors of its own
        raise RunFileError(f"{path} cannot be read: {error}") from None
    yield from pairs


def _known(facts: Mapping[str, Any]) -> list[str]:
    clients = facts.get("clients")
    return [*clients] if isinstance(clients, dict) else []
