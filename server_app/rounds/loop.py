"""The round loop: train, measure, keep what came of it, round after round.

Clients train in one exchange (``train_exchange``), and evaluation of their own rides in
the reply; who measures the server's predictor is in ``measure_exchange``. This is where
a strategy meets Flower: everything here is the same for every algorithm, and no
algorithm is here.

A round that gets fewer than ``min-replies`` is repeated or skipped, never half-merged;
a run in which not one was merged has failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from numpy.typing import NDArray

from common import wire
from common.errors import SettingsError
from common.text import reason
from server_app.contract import Algorithm
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.fleet import Fleet
from server_app.rounds.measure_exchange import Evaluate, Measured, Measuring, record_of
from server_app.rounds.orders import largest_reply
from server_app.rounds.record import RoundRecord
from server_app.rounds.round import Round
from server_app.rounds.train_exchange import Training
from server_app.run_error import RunError
from server_app.run_folder.folder import RunFolder
from server_app.transport.mailbox import Mailbox
from server_app.transport.retrying_grid import PatientGrid

logger = logging.getLogger("flwr.expertfleet")

NOTHING = Measured()


class Log(Protocol):
    """Who is told of the run as it goes (``server_app.callbacks``)."""

    stopped: str | None
    """Why no round shall follow; None lets the run go on."""

    def open(
        self, strategy: Algorithm, completed: int, clients: Callable[[], Sequence[str]]
    ) -> None:
        """Begin after ``completed`` rounds; ``clients`` names all that are known."""

    def tell(self, **facts: Any) -> None:
        """Take in facts for ``run.json``."""

    def show(self, record: RoundRecord, strategy: Algorithm) -> None:
        """Show a round that is done."""


class RoundLoop:
    """Carries the plans of one strategy to the clients and the replies back.

    Parameters
    ----------
    strategy : Algorithm

    Attributes
    ----------
    fleet : Fleet
    folder : RunFolder or None
        Where rounds are kept; None keeps nothing on the disk.
    run_name : str
        Under which clients keep their gates.
    completed : int
        Rounds done, skipped ones included.
    merged : int
        Rounds that changed the model or merged a reply.
    """

    def __init__(self, strategy: Algorithm) -> None:
        self.strategy = strategy
        self.settings = strategy.settings
        budget = DeviceBudget(
            self.settings,
            strategy.spec,
            strategy.max_budget,
            method=strategy.method,
            private_parts=strategy.private_parts,
            widths=strategy.widths,
        )
        self.fleet = Fleet(
            self.settings, budget, strategy.projections, strategy.spec.base
        )
        self.mailbox = Mailbox()
        self._training = Training(strategy, self.fleet, self.mailbox, self._tell_fleet)
        self._measuring = Measuring(strategy, self.fleet, self.mailbox)
        self.folder: RunFolder | None = None
        self._log: Log | None = None
        self.run_name = "run"
        self.completed = self.merged = 0
        self.load_total: NDArray[np.int64] = np.zeros(
            strategy.spec.num_units, dtype=np.int64
        )
        self._told_fleet: dict[str, Any] = {}
        self._round: Round | None = None

    def attach(self, folder: RunFolder, log: Log) -> None:
        """Keep every round in ``folder``; go on from its newest checkpoint if any.

        Clients keep their gates under the run's name.

        Raises
        ------
        SettingsError
            If the checkpoint cannot be gone on from.
        """
        self.folder, self._log, self.run_name = folder, log, folder.name
        if (state := folder.newest()) is not None:
            try:
                self.load_state(state)
            except Exception as error:  # whatever another version had or lacked
                raise SettingsError(
                    f"resume-from = {str(folder.path)!r}: its checkpoint is of "
                    "another version of ExpertFleet or of the strategy "
                    f"({reason(error)}): go on with that one"
                ) from None
            keeps = self.strategy.gate == "private" or self.strategy.private_parts
            if (keeps or self.strategy.method.keeps) and not (
                self.settings.run.state_dir
            ):
                logger.warning(
                    "state-dir is empty: unless devices set their own, what they keep "
                    "(%s) was in memory and starts afresh",
                    self.strategy.private,
                )
        log.open(self.strategy, self.completed, self.fleet.names)

    def run(
        self,
        grid: Grid,
        num_rounds: int,
        timeout: float,
        evaluate_fn: Evaluate | None,
    ) -> Result:
        """Run all rounds that are left and return Flower's result object.

        Raises
        ------
        RunError
            If the run cannot go on, or no round of it was merged.
        """
        self.strategy.summary()
        most = {
            "query": self.fleet.agreement.largest_answer,
            "train": largest_reply(self.strategy.spec),
            "evaluate": wire.most_measure_bytes(self.strategy.spec.num_classes),
        }
        grid = PatientGrid(grid, most)
        self._measuring.last_round = num_rounds
        result = Result()
        before, record = self.merged, None
        if self.completed > num_rounds:
            logger.warning(
                "num-rounds = %d, but %d rounds are done: the model is of the last",
                num_rounds,
                self.completed,
            )
        try:
            while self.completed < num_rounds and not self._is_stopped():
                server_round = self.completed + 1
                self._round = self._training.exchange(
                    server_round, grid, timeout, **self._told(server_round)
                )
                measured = self._measuring(
                    self._round, grid, timeout, self.run_name, evaluate_fn
                )
                record = self.close(measured)
                result.train_metrics_clientapp[record.round] = record.to_metrics()
                if measured.metrics:
                    result.evaluate_metrics_serverapp[record.round] = measured.metrics
        except BaseException:  # Ctrl-C and SIGTERM as well, whatever they raise
            if self.folder is not None and self.folder.kept:
                logger.error(
                    'stopped after round %d; to go on: resume-from="%s"',
                    self.folder.kept,
                    self.folder.path,
                )
            raise
        if not self.merged or (record is not None and self.merged == before):
            raise RunError(_why_nothing_was_merged(record))
        result.arrays = self.strategy.arrays()
        return result

    def open(self, server_round: int, grid: Grid) -> list[Message]:
        """Plan a round; return its messages, one per participant.

        Raises
        ------
        RunError
            If too few clients are there, or there is no plan.
        """
        self._round, messages = self._training.open(
            server_round, grid, **self._told(server_round)
        )
        return messages

    def accept(self, message: Message) -> None:
        """Check one reply and merge it, or note why it was not."""
        self._current().accept(message)

    def close(self, measured: Measured = NOTHING) -> RoundRecord:
        """Finish the round: apply sums, learn, write its record and a checkpoint.

        Raises
        ------
        RuntimeError
            If the strategy made NaN of a part of its model, and nothing is written
            then; or if the round cannot be written.
        """
        current = self._current()
        current.finish()
        for row, answered in current.answered.items():
            self.fleet.clients[row].note_answer(current.server_round, answered)
        for reply in current.replies:
            if reply.order.train:
                self.fleet.clients[reply.client].note_merged(current.server_round)
        self.load_total += current.load()
        late, self.mailbox.late = self.mailbox.late, 0
        record = record_of(current, self.strategy.spec, self.load_total, measured, late)
        self._round = None
        self.completed = current.server_round
        self.merged += record.merged
        if self.folder is not None:
            self.folder.keep(record.round, record.to_json(), self.state())
        if self._log is not None:
            self._log.show(record, self.strategy)
        return record

    def _tell_fleet(self) -> None:
        """Write who takes part into ``run.json`` when that has changed."""
        facts = self.fleet.facts()
        now = {
            "clients": {k: v["num_examples"] for k, v in facts["clients"].items()},
            "refused": facts["refused"],
            "task": facts["task"],
        }
        if self._log is not None and now != self._told_fleet:
            self._told_fleet = now
            self._log.tell(**facts)

    def _is_stopped(self) -> bool:
        return self._log is not None and self._log.stopped is not None

    def _current(self) -> Round:
        if self._round is None:
            raise RuntimeError("no round is open")
        return self._round

    def _told(self, server_round: int) -> dict[str, Any]:
        """Return what every order of a round says, whoever it is for."""
        evaluate = self._measuring.is_due(server_round)
        return {"run": self.run_name, "evaluate": evaluate}

    def state(self) -> dict[str, Any]:
        """Return everything a resumed run needs to go on bit for bit."""
        return {
            "completed": self.completed,
            "merged": self.merged,
            "model": dict(self.strategy.model),
            "strategy": self.strategy.state(),
            "average": self.strategy.average.state(),
            "load_total": self.load_total,
            "held": {
                str(row): experts
                for row, experts in self._training.planner.held.items()
            },
            "fleet": self.fleet.state(),
            "task": self.fleet.agreement.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.completed = state["completed"]
        self.merged = state["merged"]
        self.strategy.model = dict(state["model"])
        self.strategy.load_state(state["strategy"])
        self.strategy.average.load_state(state["average"])
        self.load_total = state["load_total"]
        self._training.planner.held = {
            int(row): experts for row, experts in state["held"].items()
        }
        self.fleet.load_state(state["fleet"])
        self.fleet.agreement.load_state(state["task"])


def _why_nothing_was_merged(record: RoundRecord | None) -> str:
    """Return one line; the record is that of the last round."""
    if record is None:
        return "no round of this run was merged: there is no model to keep"
    last = record.notes[-1] if record.notes else "no reply"
    why = last.removeprefix("round not merged: ")
    return f"no round was merged; the last one, round {record.round}: {why}"
