"""A run as its directory tells it: what the report draws, read and shaped.

Reads the files of :mod:`server_app.runlog` and nothing else, so a report can be made of
a run that is still going on, that was killed, or that came from another machine.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class ReportError(ValueError):
    """A directory holds no run that can be reported; the message is one line."""


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
    assignments : ndarray of bool, shape (T, C, E), or None
    fitness : ndarray, shape (T, C, E), or None
    learned : ndarray, shape (E, K), or None
        Share of each class's test samples that each expert alone gets right.
    """

    folder: Path
    facts: Mapping[str, Any]
    rounds: list[dict[str, Any]]
    assignments: NDArray[np.bool_] | None
    fitness: Matrix | None
    learned: Matrix | None

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
    def complete(self) -> bool:
        """Whether all rounds that were asked for are there."""
        return len(self.rounds) >= int(self.settings.get("num-rounds", 0))

    @cached_property
    def numbers(self) -> list[int]:
        """Numbers of the rounds, shape (T,)."""
        return [int(r["round"]) for r in self.rounds]

    def column(self, name: str) -> list[float]:
        """Return one scalar per round, NaN where it was not measured."""
        found = (r.get(name) for r in self.rounds)
        return [float("nan") if value is None else float(value) for value in found]

    def cumulated(self, *names: str) -> list[float]:
        """Return the running sum over rounds of one or more columns together."""
        total = sum(np.nan_to_num(self.column(name)) for name in names)
        return [float(value) for value in np.cumsum(total)]

    @cached_property
    def load(self) -> Matrix:
        """Clients that held each expert and replied, shape (E, T)."""
        return np.array([r["load"] for r in self.rounds], dtype=np.float64).T

    def last_clients(self, measure: str) -> list[float]:
        """Return a measure of every client in the newest round that has it."""
        for record in reversed(self.rounds):
            values = [c.get(measure) for c in record["clients"]]
            known = [float(value) for value in values if value is not None]
            if known:
                return known
        return []

    def churn(self) -> list[float]:
        """Return, per round, the share of assigned pairs that are new.

        A pair is new if the client did not hold the expert when it last took part;
        NaN in the first round.
        """
        if self.assignments is None:
            return []
        held = np.zeros(self.assignments.shape[1:], dtype=np.bool_)
        shares = []
        for assigned in self.assignments:
            took_part = assigned.any(axis=1)
            old = held[took_part].any(axis=1)
            pairs = assigned[took_part][old]
            new = pairs & ~held[took_part][old]
            shares.append(float(new.sum() / pairs.sum()) if pairs.any() else np.nan)
            held[took_part] = assigned[took_part]
        return shares

    def remarks(self) -> list[tuple[str, list[int]]]:
        """Return what was rejected, relaxed or discarded, with the rounds it was."""
        found: dict[str, list[int]] = {}
        for record in self.rounds:
            texts = [str(note) for note in record["notes"]]
            texts += [
                f"not merged: {c}: {why}" for c, why in record["rejected"].items()
            ]
            if record["late"]:
                texts.append("late replies discarded")
            for text in dict.fromkeys(texts):
                found.setdefault(text, []).append(int(record["round"]))
        return sorted(found.items(), key=lambda item: -len(item[1]))


def worst_tenth(values: list[float]) -> float:
    """Return the mean of the lowest tenth of the values, at least one of them."""
    count = max(1, len(values) // 10)
    return float(np.mean(sorted(values)[:count])) if values else float("nan")


def read_run(folder: Path) -> RunData:
    """Read a run's directory.

    Raises
    ------
    ReportError
        If there is no run in it, or not a single finished round.
    """
    try:
        facts = json.loads((folder / "run.json").read_text())
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    except (OSError, ValueError) as error:
        raise ReportError(
            f"{folder} is not the directory of a run with a finished round: {error}"
        ) from None
    rounds = []
    for line in lines:
        try:
            rounds.append(json.loads(line))
        except ValueError:  # the line that is being written, or was at a power cut
            break
    if not rounds:
        raise ReportError(f"{folder} has no finished round yet")
    # A matrix file is replaced after its line is appended: it may be one round behind.
    return RunData(
        folder=folder,
        facts=facts,
        rounds=rounds,
        assignments=_array(folder / "assignments.npz", "assignments"),
        fitness=_array(folder / "fitness.npz", "fitness"),
        learned=_array(folder / "expert_classes.npz", "recall"),
    )


def _array(path: Path, name: str) -> NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            found: NDArray[Any] = file[name]
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from None
