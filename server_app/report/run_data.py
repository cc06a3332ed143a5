"""A run as its directory tells it: what the report draws, read and shaped.

Reads the files in a run's directory and nothing else, so a report can be made of a run
that is still going on, that was killed, or that came from another machine.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.metrics import worst_tenth
from common.text import one_line, reason
from server_app.run_folder.matrices import FITNESS, names_of_rows, replay, rounds_of
from server_app.run_folder.run_files import (
    CONFUSION,
    RunFileError,
    class_names,
    finite,
    read_facts,
    read_metrics,
)
from server_app.run_folder.run_state import COMPLETE, DIED, run_state

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fitness:
    """What is drawn of the fitness of a run; of many clients it is large.

    Attributes
    ----------
    rounds : list of int, length T
        Those it is known after.
    shown : dict of int to ndarray, shape (C, E)
        After the first, the one in the middle and the last of them; infinite and NaN
        where it says nothing.
    clients : list of str, length C
    least, most : float
        Of all rounds.
    """

    rounds: list[int]
    shown: dict[int, Matrix]
    clients: list[str]
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class RunData:
    """One run, complete or not.

    Attributes
    ----------
    folder : Path
    facts : mapping
        ``run.json``.
    rounds : list of dict
        The lines of ``metrics.jsonl``.
    fitness : Fitness or None
    learned : ndarray, shape (E, K), or None
        Share of each class's test samples that each expert alone gets right.
    confusion : ndarray, shape (K, K), or None
        Samples by true class (rows) and answer (columns), as last measured.
    damaged : tuple of str
        What could not be read, and why.
    state : str
        ``running``, ``stopped``, ``failed``, ``died`` or ``complete``.
    why : str
        What is known of that; "" if nothing is.
    """

    folder: Path
    facts: Mapping[str, Any]
    rounds: list[dict[str, Any]]
    fitness: Fitness | None = None
    learned: Matrix | None = None
    confusion: Matrix | None = None
    damaged: tuple[str, ...] = ()
    state: str = COMPLETE
    why: str = ""

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.facts.get("run", self.folder.name))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the run, flat."""
        settings: Mapping[str, Any] = self.facts.get("settings", {})
        return settings

    @property
    def patience(self) -> float:
        """Seconds after which a run that says nothing will say nothing more."""
        return max(600.0, 10 * float(np.nanmax([0.0, *self.column("seconds")])))

    def until(self, last: int) -> "RunData":
        """Return the run as it was after a round."""
        kept = [record for record in self.rounds if record["round"] <= last]
        return replace(self, rounds=kept or self.rounds[:1])

    @cached_property
    def numbers(self) -> list[int]:
        """Numbers of the rounds, shape (T,)."""
        return [int(r["round"]) for r in self.rounds]

    def column(self, name: str) -> list[float]:
        """Return one scalar per round, NaN where it was not measured."""
        return [finite(r.get(name)) for r in self.rounds]

    def cumulated(self, *names: str) -> list[float]:
        """Return the running sum over rounds of one or more columns together."""
        total = sum(np.nan_to_num(self.column(name)) for name in names)
        with np.errstate(over="ignore"):
            return [finite(value) for value in np.cumsum(total)]

    @cached_property
    def load(self) -> Matrix:
        """Clients that held each expert and replied, shape (E, T)."""
        load = np.zeros((len(self.rounds), max(len(r["load"]) for r in self.rounds)))
        for row, record in zip(load, self.rounds, strict=True):
            row[: len(record["load"])] = [finite(held) for held in record["load"]]
        return load.T

    def shares(self, name: str) -> Matrix:
        """Return ``recall`` or ``local_recall`` of every round it was measured in.

        Returns
        -------
        ndarray, shape (K, T')
            NaN for a class without samples; columns as in :meth:`measured_rounds`.
        """
        lists = [found for _, found in self._lists(name)]
        longest = max(map(len, lists), default=0)
        rows = [
            [*map(finite, one), *[math.nan] * (longest - len(one))] for one in lists
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), longest).T

    def measured_rounds(self, name: str) -> list[int]:
        """Return the numbers of the rounds that have such a list, shape (T',)."""
        return [number for number, _ in self._lists(name)]

    def _lists(self, name: str) -> list[tuple[int, list[Any]]]:
        pairs = ((int(r["round"]), r.get(name)) for r in self.rounds)
        return [(number, each) for number, each in pairs if isinstance(each, list)]

    def class_names(self, count: int) -> list[str]:
        """Return what the classes are called, numbers where nothing says it."""
        return class_names(self.facts, count)

    def last_clients(self, measure: str) -> list[tuple[str, float]]:
        """Return clients and a measure of theirs in the newest round that has it."""
        for record in reversed(self.rounds):
            pairs = [(c["client"], finite(c.get(measure))) for c in record["clients"]]
            if known := [pair for pair in pairs if not math.isnan(pair[1])]:
                return known
        return []

    def worst_tenth(self) -> float:
        """Return the mean ``client_local`` of the worst tenth of the clients."""
        return worst_tenth([value for _, value in self.last_clients("client_local")])

    def churn(self) -> list[float]:
        """Return, per round, the share of assigned pairs that are new.

        A pair is new if the client did not hold the expert when it last took part;
        NaN in the first round.
        """
        held: dict[str, frozenset[int]] = {}
        shares = []
        for record in self.rounds:
            now = {
                client["client"]: frozenset(client["experts"])
                for client in record["clients"]
                if client["experts"]
            }
            new = [len(e - held[name]) for name, e in now.items() if name in held]
            pairs = sum(len(e) for name, e in now.items() if name in held)
            shares.append(sum(new) / pairs if pairs else math.nan)
            held |= now
        return shares

    def remarks(self) -> list[tuple[str, list[int]]]:
        """Return what was rejected, relaxed or discarded, with the rounds it was."""
        found: dict[str, list[int]] = {}
        for record in self.rounds:
            texts = [str(note) for note in record["notes"]]
            texts += [
                f"not merged: {c}: {why}" for c, why in record["rejected"].items()
            ]
            if record.get("late"):
                texts.append("late replies discarded")
            for text in dict.fromkeys(texts):
                found.setdefault(text, []).append(int(record["round"]))
        often = sorted(found.items(), key=lambda item: -len(item[1]))
        return [*((text, []) for text in self.damaged), *often]


def read_run(folder: Path) -> RunData:
    """Read a run's directory.

    Raises
    ------
    RunFileError
        If there is no run in it, or not a single finished round.
    """
    facts = read_facts(folder)
    rounds, lines = read_metrics(folder)
    if not rounds:
        raise RunFileError(f"{folder} has no finished round yet")
    damaged = [f"metrics.jsonl: line {number} is damaged" for number in lines]

    def array(name: str, read: Callable[[Any], Any]) -> Any:
        try:
            with np.load(folder / name, allow_pickle=False) as file:
                return read(file)
        except FileNotFoundError:
            return None
        except Exception as error:  # zip, zlib, NumPy: each has errors of its own
            damaged.append(f"{name} cannot be read: {error}")
            return None

    state, why = _state(folder, facts, rounds[-1]["round"])
    learned = array("expert_classes.npz", lambda file: _axes(file["recall"], 2))
    confusion = array(CONFUSION, lambda file: _axes(file["confusion"], 2))
    return RunData(
        folder=folder,
        facts=facts,
        rounds=rounds,
        fitness=_fitness(folder, facts, damaged),
        learned=learned,
        confusion=confusion,
        damaged=tuple(damaged),
        state=state,
        why=why,
    )


def _state(folder: Path, facts: Mapping[str, Any], last: int) -> tuple[str, str]:
    """Return how a run stands, and what is known of why."""
    state, why = run_state(folder, facts), str(facts.get("why") or "")
    no_more = str(facts.get("stopped") or "")
    asked = finite(facts["settings"].get("num-rounds"))
    if state == DIED:
        # Of before runs said how they end, or killed when all was done.
        if no_more or last >= asked:
            state = COMPLETE
        else:
            why = "its server ended without a word"
    return state, one_line(no_more if state == COMPLETE else why)


def _fitness(
    folder: Path, facts: Mapping[str, Any], damaged: list[str]
) -> Fitness | None:
    """Return what is drawn of the fitness; say what of it is damaged."""
    try:
        # A round is appended after its line: the newest may not be there yet.
        rounds, whole = rounds_of(folder)
        if not whole:
            after = f"after round {rounds[-1]}" if rounds else "from its beginning"
            damaged.append(f"{FITNESS} is damaged {after}")
        if not rounds:
            return None
        wanted = {0, len(rounds) // 2, len(rounds) - 1}
        shown, least, most = {}, math.inf, -math.inf
        for index, (number, matrix) in enumerate(replay(folder)):
            known = matrix[np.isfinite(matrix)]
            least = min(least, float(known.min(initial=math.inf)))
            most = max(most, float(known.max(initial=-math.inf)))
            if index in wanted:
                shown[number] = matrix.astype(np.float64)
        return Fitness(
            rounds=rounds,
            shown=shown,
            clients=names_of_rows(facts, len(matrix)),
            least=least,
            most=most,
        )
    except (OSError, RunFileError) as error:
        damaged.append(f"fitness cannot be read: {reason(error)}")
        return None


def _axes(values: NDArray[Any], axes: int) -> Matrix:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != axes or not found.size:
        raise ValueError(f"its shape is {found.shape}")
    return found
