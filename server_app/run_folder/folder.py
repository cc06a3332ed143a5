"""What of a run must not be lost: its directory, its facts, its rounds, its state.

``<output-dir>/<run>/`` has ``run.json`` (settings, versions, clients),
``metrics.jsonl`` (one object a round, appended), ``checkpoints/``,
``model.safetensors`` and ``lock``. What is in there to be looked at is written by
``server_app.callbacks``.

Order of the writes, and what is left if the power goes before the next one:

==  ==============================================  ===============================
1   the directory, ``lock``, ``run.json``           resuming starts with round 1
2   a round's line of ``metrics.jsonl``, synced     it is dropped, the round made again
3   its checkpoint, synced, renamed, synced         resuming goes on after this round
4   older checkpoints are removed                   some are left, removed next time
5   callbacks: table, matrices, report, ...         a round behind, brought up to date
6   ``model.safetensors`` after the last round      resuming writes it at once
==  ==============================================  ===============================

So no checkpoint is ahead of what is on record. All of it fails loudly but 5, which is
guarded (``server_app.callbacks.callbacks``) and never stands between a round and its
checkpoint.
"""

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from common.errors import SettingsError
from common.files import atomic_write, durable_append, make_folder, remove_partial
from common.moe import Layout, Vector, unflatten
from common.settings import Settings
from common.text import reason
from server_app.run_error import RunError
from server_app.run_folder.checkpoint import CheckpointError, Checkpoints
from server_app.run_folder.resuming import facts_of
from server_app.run_folder.run_files import (
    FACTS,
    METRICS,
    RunFileError,
    read_metrics,
    to_json,
)
from server_app.run_folder.run_lock import RunLock

logger = logging.getLogger("flwr.expertfleet")


def check_place(settings: Settings) -> None:
    """Say before anything is loaded that a run could not be written where it should.

    Makes nothing. What only trying would show, :class:`RunFolder` finds out.

    Raises
    ------
    SettingsError
        In one line: which setting and why.
    """
    run = settings.run
    if run.resume_from:
        place, folder = f"resume-from = {run.resume_from!r}", Path(run.resume_from)
        try:
            facts_of(folder, settings)
        except RunFileError as error:
            raise SettingsError(f"{place}: {error}") from None
    else:
        place, folder = f"output-dir = {run.output_dir!r}", Path(run.output_dir)
    try:
        found = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    except OSError as error:
        raise SettingsError(f"{place} cannot be written: {reason(error)}") from None
    if not found.is_dir():
        raise SettingsError(f"{place} cannot be written: {found} is no directory")
    if not os.access(found, os.W_OK | os.X_OK):
        raise SettingsError(f"{place} cannot be written: no right to write in {found}")


class RunFolder:
    """One run's directory, locked until :meth:`release`.

    Parameters
    ----------
    settings : Settings
        ``output-dir`` is the parent of the run's directory; with ``resume-from`` the
        directory named there is continued.

    Attributes
    ----------
    path : Path
    name : str
        Name of the run: when, what, on what, and six digits that make it unique
        wherever else runs are kept. Always as long for the same settings.
    resumed : bool
        Whether an earlier run is continued.
    kept : int
        The newest round that resuming would go on after.

    Raises
    ------
    SettingsError
        If the directory cannot be written, or the run to be continued does not exist,
        is damaged, is being written by another server or had other settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._facts: dict[str, Any] = {}
        self.kept = 0
        run = settings.run
        self.resumed = bool(run.resume_from)
        place = f"output-dir = {run.output_dir!r}"
        try:
            if self.resumed:
                place = f"resume-from = {run.resume_from!r}"
                self.path = Path(run.resume_from).absolute()
                self._facts = facts_of(self.path, settings)
                self.name = str(self._facts["run"])
            else:
                self.name, self.path = _fresh_folder(settings)
            self._lock = RunLock(self.path)
        except RunFileError as error:
            raise SettingsError(f"{place}: {error}") from None
        except OSError as error:
            raise SettingsError(f"{place} cannot be written: {reason(error)}") from None
        self._checkpoints = Checkpoints(self.path, run.keep_checkpoints)

    def newest(self) -> dict[str, Any] | None:
        """Return the state to go on from; None for a run that has none yet.

        Raises
        ------
        SettingsError
            If there should be one.
        """
        if not self.resumed:
            return None
        remove_partial(self.path)
        try:
            rounds, _ = read_metrics(self.path)
            state = self._checkpoints.newest()
        except ValueError as error:
            raise SettingsError(f"resume-from = {str(self.path)!r}: {error}") from None
        # Of a first round that has no checkpoint yet the line may be there.
        if state is None and any(record["round"] > 1 for record in rounds):
            raise SettingsError(
                f"resume-from = {str(self.path)!r}: round {rounds[-1]['round']} is "
                "on record, but there is no checkpoint to go on from: put the files of "
                "checkpoints/ back, or start a new run without resume-from"
            )
        return state

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says; a copy."""
        return dict(self._facts)

    def write_facts(self, **facts: Any) -> None:
        """Add facts to ``run.json``.

        Raises
        ------
        RunError
            If it cannot be written; what was there before is intact.
        """
        self._facts |= facts
        with self._written(FACTS), atomic_write(self.path / FACTS) as file:
            file.write(to_json(self._facts, indent=2).encode() + b"\n")

    def restore(self, completed: int) -> list[dict[str, Any]]:
        """Make ``metrics.jsonl`` end with the round to go on from; return its lines."""
        self.kept = completed
        rounds, damaged = read_metrics(self.path)
        if damaged:
            logger.warning("%s: lines %s are damaged", METRICS, _some(damaged))
        later = [r["round"] for r in rounds if r["round"] > completed]
        if len(later) > 1:
            logger.warning("no checkpoint of rounds %s: made again", _some(later))
        found = {r["round"]: r for r in rounds if r["round"] <= completed}
        lost = [number for number in range(1, completed + 1) if number not in found]
        if lost:
            found |= self._found_again(lost)
        kept = [found[number] for number in sorted(found)]
        text = "".join(f"{to_json(record)}\n" for record in kept).encode()
        path = self.path / METRICS
        if not path.exists() or path.read_bytes() != text:
            # Readable for whom it was before; nothing in it is secret.
            with self._written(METRICS), atomic_write(path, mode=0o644) as file:
                file.write(text)
        return kept

    def _found_again(self, lost: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the lines of rounds that checkpoints still have, and say it."""
        found = {}
        for state in self._checkpoints.intact():
            if "record" in state and state["completed"] in lost:
                found[state["completed"]] = json.loads(state["record"])
        if found:
            logger.warning(
                "%s had lost rounds %s: taken from the checkpoints after them",
                METRICS,
                _some(sorted(found)),
            )
        if gone := [number for number in lost if number not in found]:
            logger.warning(
                "%s has lost rounds %s; what was trained in them is not lost",
                METRICS,
                _some(gone),
            )
        return found

    def keep(
        self, server_round: int, record: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Put a round on the disk: its line first, then the checkpoint after it.

        Raises
        ------
        RunError
            If either cannot be written, or the state is of what no checkpoint can keep;
            the checkpoint before is intact.
        """
        line = to_json(record)
        with self._written(f"round {server_round}"):
            durable_append(self.path / METRICS, line.encode() + b"\n")
            # With the line, so that a disk that loses one of the two can be mended.
            try:
                self._checkpoints.save(server_round, {**state, "record": line})
            except CheckpointError as error:
                raise RunError(f"round {server_round}: {error}") from None
        self.kept = server_round

    def save_model(
        self, model: Mapping[str, Vector], layout: Callable[[str], Layout]
    ) -> None:
        """Write ``model.safetensors`` with one named tensor per parameter.

        Raises
        ------
        RunError
            If it is none, or cannot be written; the run can be gone on with, to write
            it.
        """
        unusable = [part for part, vector in model.items() if np.isnan(vector).any()]
        if unusable or not model:
            what = f"NaN in {', '.join(unusable[:3])}" if unusable else "no parts"
            raise RunError(f"no model is kept: the strategy publishes {what}")
        tensors = {
            f"{part}.{name}": np.ascontiguousarray(tensor)
            for part, vector in model.items()
            for name, tensor in unflatten(vector, layout(part)).items()
        }
        name = "model.safetensors"
        with self._written(name), atomic_write(self.path / name) as file:
            file.write(save(tensors))

    @contextmanager
    def _written(self, what: str) -> Iterator[None]:
        """Say in one line what could not be written, where and why."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{what} cannot be kept in {self.path}: {reason(error)}"
            ) from error

    def release(self) -> None:
        """Let others write the directory."""
        self._lock.release()


def _fresh_folder(settings: Settings) -> tuple[str, Path]:
    """Make a directory of a name nobody else has, here or on any device."""
    run, strategy = settings.run, settings.run.strategy
    # The name travels in every order: a file's may have anything in it.
    labels = [
        re.sub(r"[^\w.-]", "-", text)[:30]
        for text in (strategy.replace(".", "-"), settings.data.label)
    ]
    stamp, unique = time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(3)
    name = "-".join([stamp, *labels, f"s{run.seed}", unique])
    folder = Path(run.output_dir).absolute() / name
    make_folder(folder, new=True)
    return name, folder


def _some(numbers: Sequence[int]) -> str:
    """Return numbers as text, not more than a line of them."""
    shown = ", ".join(map(str, numbers[:10]))
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"
