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
import time
from collections.abc import Mapping
from typing import Any

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
from server_app.fleet.reasons import named
from server_app.rounds.best import Collapse
from server_app.rounds.listener import Listener
from server_app.rounds.measure_exchange import Evaluate, Measured, Measuring, record_of
from server_app.rounds.orders import largest_reply
from server_app.rounds.outcome import learnt, restore_learnt
from server_app.rounds.private_round import Privacy
from server_app.rounds.record import RoundRecord
from server_app.rounds.round import Round
from server_app.rounds.train_exchange import Training
from server_app.run_error import RunError
from server_app.run_folder.folder import RunFolder
from server_app.transport.mailbox import Clock, Mailbox
from server_app.transport.retrying_grid import PatientGrid

logger = logging.getLogger("flwr.expertfleet")

NOTHING = Measured()


class RoundLoop:
    """Carries the plans of one strategy to the clients and the replies back.

    Parameters
    ----------
    strategy : Algorithm
    clock : Clock
        By which a round's deadline is told.

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

    def __init__(self, strategy: Algorithm, clock: Clock = time) -> None:
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
        self.mailbox = Mailbox(clock)
        central = self.settings.privacy.is_central
        self._privacy = Privacy(strategy) if central else None
        self._training = Training(
            strategy,
            self.fleet,
            self.mailbox,
            self._tell_fleet,
            self._privacy,
            self._watch,
        )
        self._measuring = Measuring(strategy, self.fleet, self.mailbox)
        self.folder: RunFolder | None = None
        self._log: Listener | None = None
        self.run_name = "run"
        self.completed = self.merged = 0
        self.load_total: NDArray[np.int64] = np.zeros(
            strategy.spec.num_units, dtype=np.int64
        )
        self._told_fleet: dict[str, Any] = {}
        self._round: Round | None = None
        self._collapse = Collapse(
            self.settings.run,
            strategy.spec.num_classes,
            by_devices=self._measuring.by_devices,
        )

    def attach(self, folder: RunFolder, log: Listener) -> None:
        """Keep every round in ``folder``; go on from its newest checkpoint if any.

        Clients keep their gates under the run's name.

        Raises
        ------
        SettingsError
            If the checkpoint cannot be gone on from.
        """
        self.folder, self._log, self.run_name = folder, log, folder.name
        state = folder.newest()
        if self._privacy is not None:
            self._privacy.attach(folder, (state or {}).get("privacy", {}))
        if state is not None:
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
            self._collapse.keep_best(self.completed, folder)
        log.open(self.strategy, self.completed, self.fleet.names)
        if self._privacy is not None:
            log.tell(privacy=self._privacy.facts())

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
                if self._privacy and (why := self._privacy.budget.exhausted()):
                    self._stop(why)
                    break
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
        if at_work := self._training.at_work():
            logger.info("the run is over: %s still at work", named(at_work))
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
        for reply in current.outcome.replies:
            if reply.order.train:
                client = self.fleet.clients[reply.client]
                client.note_merged(reply.order.server_round)
        self.load_total += current.outcome.load()
        late, self.mailbox.late = self.mailbox.late, 0
        record = record_of(current, self.strategy.spec, self.load_total, measured, late)
        record.resting = self.fleet.resting(current.server_round + 1)
        self._round = None
        self.completed = current.server_round
        self.merged += record.merged
        if (best := self._collapse.look_after(record, self.folder)) is not None:
            self._restore_learnt(best)
        if self.folder is not None:
            self.folder.keep(record.round, record.to_json(), self.state())
            self._collapse.keep_best(self.completed, self.folder)
        if self._log is not None:
            if self._collapse.stopped:
                self._log.tell(stopped=self._collapse.stopped)
            self._log.show(record, self.strategy)
        return record

    def _tell_fleet(self) -> None:
        """Write who takes part into ``run.json`` when that has changed."""
        now = self.fleet.outline()
        if self._log is not None and now != self._told_fleet:
            self._told_fleet = now
            self._log.tell(**self.fleet.facts())

    def _watch(self, server_round: int, answers: int, asked: int) -> None:
        if self.folder is not None:
            self.folder.watch(server_round, answers, asked)

    def _stop(self, why: str) -> None:
        if self._log is None:
            logger.info("no round follows: %s", why)
        else:
            self._log.stop(why)

    def _is_stopped(self) -> bool:
        by_log = self._log is not None and self._log.stopped is not None
        return by_log or self._collapse.has_ended_run()

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
            **learnt(self.strategy),
            "sums": self.strategy.sums.state(),
            "collapse": self._collapse.state(),
            "stopped": self._collapse.stopped,
            "load_total": self.load_total,
            "held": self._training.planner.state(),
            "fleet": self.fleet.state(),
            "task": self.fleet.agreement.state(),
            "privacy": {} if self._privacy is None else self._privacy.budget.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.completed = state["completed"]
        self.merged = state["merged"]
        self._restore_learnt(state)
        self.strategy.sums.load_state(state["sums"])
        self._collapse.load_state(state["collapse"])
        self._collapse.stopped = state["stopped"]
        self.load_total = state["load_total"]
        self._training.planner.load_state(state["held"])
        self.fleet.load_state(state["fleet"])
        self.fleet.agreement.load_state(state["task"])

    def _restore_learnt(self, state: Mapping[str, Any]) -> None:
        """Go back to what rounds had taught by then."""
        restore_learnt(self.strategy, state)
        self._training.give_up()  # what is still out was trained from another model


def _why_nothing_was_merged(record: RoundRecord | None) -> str:
    """Return one line; the record is that of the last round."""
    if record is None:
        return "no round of this run was merged: there is no model to keep"
    last = record.notes[-1] if record.notes else "no reply"
    why = last.removeprefix("round not merged: ")
    return f"no round was merged; the last one, round {record.round}: {why}"
