"""What of a run must not be lost: its directory, its facts, its rounds, its state.

``<output-dir>/<run>/`` has ``run.json`` (settings, versions, clients),
``metrics.jsonl`` (one object a round, appended), ``checkpoints/``,
``model.safetensors`` and ``lock``. What is in there to be looked at is written by
``server_app.callbacks``. Not here: where that directory can be and how it is called
(``unbegun``), and how lost lines are found again (``mending``).

Order of the writes, and what is left if the power goes before the next one:

==  ==============================================  ===============================
1   the directory, ``lock``, ``run.json``           resuming starts with round 1
2   with ``privacy``, a round's line of             it is made again and paid for twice
    ``privacy.jsonl``, synced
3   a round's line of ``metrics.jsonl``, synced     it is dropped, the round made again
4   its checkpoint, synced, renamed, synced         resuming goes on after this round
5   older checkpoints are removed, that of the      some are left, removed next time;
    best round gets its second name                 it gets it when the run is resumed
6   callbacks: table, fitness, report, ...          a round behind, brought up to date
7   ``model.safetensors`` after the last round      resuming writes it at once
==  ==============================================  ===============================

So no checkpoint is ahead of what is on record. All of it fails loudly but 6, which is
guarded (``server_app.callbacks.callbacks``) and never stands between a round and its
checkpoint.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from common.errors import SettingsError
from common.files import atomic_write, durable_append, remove_partial
from common.moe import Layout, Vector, unflatten
from common.settings import Settings
from common.text import reason
from server_app.run_error import RunError
from server_app.run_folder.charges import CHARGES, append_charge, read_charges
from server_app.run_folder.checkpoint import CheckpointError, Checkpoints
from server_app.run_folder.mending import mended
from server_app.run_folder.resuming import facts_of
from server_app.run_folder.run_files import (
    FACTS,
    METRICS,
    PROGRESS,
    RunFileError,
    read_metrics,
    to_json,
    write_facts,
)
from server_app.run_folder.run_lock import RunLock
from server_app.run_folder.unbegun import fresh_folder

WATCH_SECONDS = 0.5
"""Between two notes of how far a round is."""


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
        self._watched = 0.0
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
                self.name, self.path = fresh_folder(settings)
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
        with self._written(FACTS):
            write_facts(self.path, self._facts)

    def restore(self, completed: int) -> list[dict[str, Any]]:
        """Make ``metrics.jsonl`` end with the round to go on from; return its lines."""
        self.kept = completed
        kept = mended(self.path, self._checkpoints, completed)
        text = "".join(f"{to_json(record)}\n" for record in kept).encode()
        path = self.path / METRICS
        if not path.exists() or path.read_bytes() != text:
            # Readable for whom it was before; nothing in it is secret.
            with self._written(METRICS), atomic_write(path, mode=0o644) as file:
                file.write(text)
        return kept

    def charges(self) -> list[dict[str, Any]]:
        """Return every :meth:`charge` of the run, {} for one that is damaged.

        Raises
        ------
        RunError
            If they cannot be read.
        """
        with self._written(CHARGES):
            return read_charges(self.path)

    def charge(self, line: Mapping[str, Any]) -> None:
        """Put on the disk what is about to be released.

        Raises
        ------
        RunError
            If it cannot be written: nothing may be released then.
        """
        with self._written(CHARGES):
            append_charge(self.path, line)

    def watch(self, server_round: int, answers: int, asked: int) -> None:
        """Note how far a round is, for whoever looks on; at most twice a second."""
        now = time.monotonic()
        if answers and now < self._watched + WATCH_SECONDS:
            return
        self._watched = now
        seen = to_json({"round": server_round, "answers": answers, "asked": asked})
        with suppress(OSError):  # the round is worth more
            (self.path / PROGRESS).write_text(seen)

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

    def keep_best(self, server_round: int) -> None:
        """Keep the checkpoint of a round whatever rounds follow.

        Raises
        ------
        RunError
            If that is impossible.
        """
        with self._written(f"round {server_round}"):
            self._checkpoints.keep_best(server_round)

    def best(self) -> dict[str, Any] | None:
        """Return the state kept so; None if there is none that can be read."""
        return self._checkpoints.best()

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
        with suppress(OSError):
            (self.path / PROGRESS).unlink(missing_ok=True)
        self._lock.release()
