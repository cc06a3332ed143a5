"""What a run leaves on the disk, and the line it prints per round.

``<output-dir>/<run>/`` holds ``run.json`` (settings, versions, partition hash),
``metrics.jsonl`` (one object a round, appended), ``assignments.npz`` (round x client x
expert), ``fitness.npz`` (the matrix after every round), ``expert_classes.npz`` (what
each expert recognises), ``report.html`` and ``model.safetensors``. The scalars of every
round also go to the sinks the user asked for.
"""

import json
import logging
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from common.code_hash import code_hash
from common.config import Settings
from common.files import atomic_write
from common.moe import Layout, Vector, unflatten
from common.sections import SettingsError
from server_app.record import RoundRecord
from server_app.report import LiveReport
from server_app.sinks import Sinks, sink_names

logger = logging.getLogger("flwr.expertfleet")

MOST_SHOWN = 16
"""Devices that get a line of their own in the log of each round."""

# Settings that may differ between a run and its continuation: they change where and
# how long it runs, not what it computes.
FREE_TO_CHANGE = frozenset(
    {
        "data-dir",
        "pretrained",
        "keep-checkpoints",
        "num-rounds",
        "output-dir",
        "resume-from",
        "round-deadline",
        "sinks",
        "solver-time-limit",
        "state-dir",
    }
)


class RunLog:
    """Writes one run's directory.

    Parameters
    ----------
    settings : Settings
        ``output-dir`` is the parent of the run's directory; with ``resume-from`` the
        directory named there is continued.

    Attributes
    ----------
    folder : Path
    name : str
        Name of the run: when, what, on what.
    resumed : bool
        Whether an earlier run is continued.

    Raises
    ------
    SettingsError
        If the run to be continued does not exist or had other settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._assignments: list[NDArray[np.bool_]] = []
        self._fitness: list[NDArray[np.float32]] = []
        self._clients: list[str] = []
        self._facts: dict[str, Any] = {}
        self._sink_names = sink_names(settings.run.sinks)
        self._sinks: Sinks | None = None
        self.resumed = bool(settings.run.resume_from)
        if self.resumed:
            self.folder = Path(settings.run.resume_from).absolute()
            self._facts = _facts_of(self.folder, settings)
            self.name = self._facts["run"]
            self._report = LiveReport(self.folder)
            return
        run = settings.run
        strategy = "".join(c if c.isalnum() else "-" for c in run.strategy)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        base = f"{stamp}-{strategy}-{settings.data.dataset}-s{run.seed}"
        self.name, self.folder = _fresh_folder(Path(run.output_dir).absolute(), base)
        self._report = LiveReport(self.folder)

    def open(self, completed: int) -> None:
        """Write ``run.json`` and drop what was logged after the round to go on from."""
        self._restore(completed)
        self.write_facts(
            run=self.name,
            settings=self._settings.to_run_config(),
            code_hash=code_hash(),
            versions={
                name: version(name)
                for name in ("flwr", "torch", "numpy", "ortools", "pydantic")
            }
            | {"python": platform.python_version()},
        )
        self._sinks = Sinks(
            self._sink_names,
            self.folder,
            self.name,
            self._settings.to_run_config(),
            completed,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says; a copy."""
        return dict(self._facts)

    def write_facts(self, **facts: Any) -> None:
        """Add facts to ``run.json``."""
        self._facts |= facts
        with atomic_write(self.folder / "run.json") as file:
            file.write(json.dumps(self._facts, indent=2).encode() + b"\n")

    def _restore(self, completed: int) -> None:
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # the line that was being written when the power went
                break
            if record["round"] <= completed:
                kept.append(line)
        with atomic_write(path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())
        self._assignments = self._load("assignments", completed)
        self._fitness = self._load("fitness", completed)

    def _load(self, name: str, completed: int) -> list[NDArray[Any]]:
        path = self.folder / f"{name}.npz"
        if not path.exists():
            return []
        with np.load(path, allow_pickle=False) as file:
            self._clients = [str(client) for client in file["clients"]]
            return list(file[name][:completed])

    def append(
        self, record: RoundRecord, fitness: NDArray[np.float64] | None = None
    ) -> None:
        """Add a round to ``metrics.jsonl`` and to the arrays, and print its line."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record.to_json()) + "\n")
        if len(self._assignments) % 20 == 0:
            logger.info("%s", record.line(header=True))
        logger.info("%s", record.line())
        # Of a small fleet one wants to see every device; virtual clients have no peak.
        devices = [each for each in record.clients if each.memory_peak is not None]
        for device in devices[:MOST_SHOWN]:
            logger.info("      %s", device.line())
        for note in record.notes:
            logger.info("      %s", note)
        for client, reason in record.rejected.items():
            logger.info("      not merged: %s: %s", client, reason)
        if record.late:
            logger.info("      %d late replies discarded", record.late)
        self._remember(record, fitness)
        if self._sinks is not None:
            self._sinks.log(record.round, record.scalars())
        self._report.refresh()

    def learned(self, recall: NDArray[np.float64]) -> None:
        """Keep what each expert recognises now.

        Parameters
        ----------
        recall : ndarray, shape (E, K)
            Share of each class's test samples that the expert alone gets right.
        """
        with atomic_write(self.folder / "expert_classes.npz") as file:
            np.savez_compressed(file, recall=recall)

    def close(self) -> None:
        """Write the last report and let go of the sinks; the run is over."""
        if (self.folder / "metrics.jsonl").exists():
            self._report.write()
        if self._sinks is not None:
            self._sinks.close()

    def _remember(
        self, record: RoundRecord, fitness: NDArray[np.float64] | None
    ) -> None:
        rows = {name: row for row, name in enumerate(self._clients)}
        for client in record.clients:
            rows.setdefault(client.client, len(rows))
        self._clients = list(rows)
        held = np.zeros((len(rows), len(record.load)), dtype=np.bool_)
        for client in record.clients:
            held[rows[client.client], client.experts] = True
        self._assignments.append(held)
        self._save("assignments", self._assignments)
        if fitness is not None:
            self._fitness.append(fitness.astype(np.float32))
            self._save("fitness", self._fitness)

    def _save(self, name: str, matrices: list[NDArray[Any]]) -> None:
        arrays: dict[str, Any] = {
            name: _stacked(matrices),
            "clients": np.array(self._clients),
        }
        with atomic_write(self.folder / f"{name}.npz") as file:
            # Written anew every round: compressing would take 25 times as long.
            np.savez(file, **arrays)

    def save_model(
        self, model: Mapping[str, Vector], layout: Callable[[str], Layout]
    ) -> None:
        """Write ``model.safetensors`` with one named tensor per parameter."""
        tensors = {
            f"{part}.{name}": np.ascontiguousarray(tensor)
            for part, vector in model.items()
            for name, tensor in unflatten(vector, layout(part)).items()
        }
        with atomic_write(self.folder / "model.safetensors") as file:
            file.write(save(tensors))


def _facts_of(folder: Path, settings: Settings) -> dict[str, Any]:
    """Return ``run.json`` of a run, after checking that its settings are these."""
    try:
        facts: dict[str, Any] = json.loads((folder / "run.json").read_text())
        stored = dict(facts["settings"])
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(
            f"resume-from = {str(folder)!r} is not the directory of a run: {error}"
        ) from None
    now = settings.to_run_config()
    changed = [
        f"{key} was {stored.get(key)!r}, now {value!r}"
        for key, value in now.items()
        if key not in FREE_TO_CHANGE and stored.get(key, value) != value
    ]
    if changed:
        raise SettingsError(
            f"resume-from = {str(folder)!r} had other settings: {'; '.join(changed)}"
        )
    return facts


def _fresh_folder(parent: Path, base: str) -> tuple[str, Path]:
    """Make a directory nobody else has; runs of the same second get a number."""
    for attempt in range(10_000):
        name = base if attempt == 0 else f"{base}-{attempt}"
        try:
            (parent / name).mkdir(parents=True)
        except FileExistsError:
            continue
        return name, parent / name
    raise FileExistsError(f"no free name for a run below {parent}")


def _stacked(matrices: list[NDArray[Any]]) -> NDArray[Any]:
    """Stack (clients, experts) matrices over rounds; earlier ones may be shorter."""
    rows = max(len(matrix) for matrix in matrices)
    stacked = np.zeros((len(matrices), rows, matrices[0].shape[1]), matrices[0].dtype)
    for index, matrix in enumerate(matrices):
        stacked[index, : len(matrix)] = matrix
    return stacked
