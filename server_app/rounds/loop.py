"""The round loop: plan, push, merge each reply as it lands, keep what came of it.

One exchange a round; evaluation rides in the train reply. This is where a strategy
meets Flower: everything here is the same for every algorithm, and no algorithm is here.

A round that gets fewer than ``min-replies`` is repeated or skipped, never half-merged;
a run in which not one was merged has failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from numpy.typing import NDArray

from common import wire
from common.errors import SettingsError
from common.text import reason
from server_app.contract import Algorithm, Plan
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.fleet import Fleet
from server_app.rounds.fleet_evaluation import FleetEvaluation
from server_app.rounds.measured import Measured
from server_app.rounds.orders import largest_reply, orders_of
from server_app.rounds.planning import Planner
from server_app.rounds.record import RoundRecord
from server_app.rounds.round import Round
from server_app.rounds.selection import Selection
from server_app.run_error import RunError
from server_app.run_folder.folder import RunFolder
from server_app.transport.mailbox import Mailbox
from server_app.transport.retrying_grid import PatientGrid

logger = logging.getLogger("flwr.expertfleet")

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]

NOTHING = Measured()

REPEATS = 3
"""How often a short round is tried again before it is skipped after all."""


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
        budget = DeviceBudget(self.settings, strategy.spec, strategy.max_budget)
        self.fleet = Fleet(self.settings, budget)
        self.mailbox = Mailbox()
        self._selection = Selection(strategy, self.fleet, self.mailbox)
        self._planner = Planner(strategy, self.fleet)
        self._fleet_evaluation = FleetEvaluation(strategy, self.fleet, self.mailbox)
        self._measured_by_fleet = bool(self.settings.data.task)
        self.folder: RunFolder | None = None
        self._log: Log | None = None
        self.run_name = "run"
        self.num_rounds = self.settings.rounds.num_rounds
        self.completed = self.merged = 0
        self.load_total: NDArray[np.int64] = np.zeros(
            strategy.spec.num_units, dtype=np.int64
        )
        self._told_fleet: dict[str, Any] = {}
        self._round: Round | None = None
        self._begun = False
        self._repeats = REPEATS if self.settings.rounds.short_round == "repeat" else 0

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
            if self.strategy.gate == "private" and not self.settings.run.state_dir:
                logger.warning(
                    "state-dir is empty: unless devices set their own, gates were in "
                    "memory and start afresh"
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
        self.num_rounds = num_rounds
        result = Result()
        before, record = self.merged, None
        try:
            while self.completed < num_rounds and not self._is_stopped():
                self._exchange(grid, self.completed + 1, timeout)
                measured = self._evaluate(grid, timeout, evaluate_fn)
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

    def _exchange(self, grid: Grid, server_round: int, timeout: float) -> None:
        """Carry out one round, again if it was too short and policy says so."""
        for attempt in range(self._repeats + 1):
            messages = self.open(server_round, grid, attempt)
            current = self._current()
            replies = self.mailbox.exchange(
                grid, messages, timeout, current.resend_lost
            )
            for reply in replies:
                if (again := current.resend_missing(reply)) is not None:
                    messages.append(again)
                    continue
                self.accept(reply)
                if current.has_enough():
                    break
            replies.close()
            if not current.is_short() or attempt == self._repeats:
                return
            why = current.shortage()
            current.dropped.append(f"attempt {attempt + 1} dropped: {why}")
            current.drop()

    def open(self, server_round: int, grid: Grid, attempt: int = 0) -> list[Message]:
        """Plan a round, or try it again; return its messages, one per participant.

        Where fewer than ``min-replies`` clients are there after ``round-deadline``,
        nobody is asked: the round is short.

        Raises
        ------
        RunError
            If it is the first round, or if nobody at all was there and no attempt is
            left.
        """
        needed = self.settings.rounds.min_replies
        ready = self._selection.wait(server_round, grid, needed)
        self._tell_fleet()
        earlier = self._round if attempt else None
        if len(ready) < needed:
            found = self.fleet.account(ready)
            if not self._begun or not (ready or attempt < self._repeats):
                raise RunError(
                    f"no client can take part: {found}"
                    if not ready
                    else f"too few clients, min-replies = {needed}: {found}"
                )
            nobody = np.zeros((0, self.strategy.spec.num_units), dtype=np.bool_)
            plan = Plan(assignment=nobody)
            self._round = Round(
                self.strategy, server_round, plan, shortage=found, earlier=earlier
            )
            return []
        self._begun = True
        clients, wanted = self._selection.sample(server_round, ready)
        view, plan = self._planner.plan(server_round, clients)
        notes = self.fleet.take_notes()
        self._round = Round(
            self.strategy,
            server_round,
            plan,
            wanted=wanted,
            one_test_set=self.fleet.agreement.one_test_set(c.profile for c in clients),
            notes=notes,
            earlier=earlier,
        )
        orders = orders_of(
            self.strategy,
            view,
            plan,
            clients,
            self.fleet.agreement.told,
            run=self.run_name,
            attempt=attempt,
            evaluate=self._evaluates(server_round),
        )
        return [self._round.ask(order) for order in orders]

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
        record = current.record(self.load_total, measured, late)
        self._round = None
        self.completed = current.server_round
        self.merged += record.merged
        if self.folder is not None:
            self.folder.keep(record.round, record.to_json(), self.state())
        if self._log is not None:
            self._log.show(record, self.strategy)
        return record

    def _evaluate(
        self, grid: Grid, timeout: float, evaluate_fn: Evaluate | None
    ) -> Measured:
        """Return what is measured of the model that the round produced.

        Devices measure it where the server has nothing to do so with.
        """
        current = self._current()
        by_fleet = evaluate_fn is None and self._measured_by_fleet
        if not self._evaluates(current.server_round):
            return Measured.by_fleet(None) if by_fleet else NOTHING
        current.finish()
        if evaluate_fn is not None:
            metrics = evaluate_fn(current.server_round, self.strategy.arrays())
            return Measured.by_server(metrics, self.strategy.spec.num_classes)
        if not by_fleet:
            return NOTHING
        return self._fleet_evaluation(grid, current, self.run_name, timeout)

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

    def _evaluates(self, server_round: int) -> bool:
        every = self.settings.rounds.eval_every
        return server_round % every == 0 or server_round == self.num_rounds

    def state(self) -> dict[str, Any]:
        """Return everything a resumed run needs to go on bit for bit."""
        return {
            "completed": self.completed,
            "merged": self.merged,
            "model": dict(self.strategy.model),
            "strategy": self.strategy.state(),
            "average": self.strategy.average.state(),
            "load_total": self.load_total,
            "held": {str(row): experts for row, experts in self._planner.held.items()},
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
        self._planner.held = {
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
