"""The round loop: open, push, merge each reply as it lands, log, checkpoint.

One exchange a round; evaluation rides in the train reply. This is where a strategy
meets Flower: everything here is the same for every algorithm, and no algorithm is here.

A round that gets fewer than ``min-replies`` is repeated or skipped, never half-merged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from server_app.checkpoint import Checkpoints
from server_app.device_budget import DeviceBudget
from server_app.fleet import Fleet
from server_app.mailbox import Mailbox
from server_app.open_round import OpenRound
from server_app.opening import RoundOpener
from server_app.patient_grid import PatientGrid
from server_app.record import RoundRecord
from server_app.runlog import RunLog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server_app.strategies.base import ExpertStrategy

logger = logging.getLogger("flwr.expertfleet")

REPEATS = 3
"""How often a short round is tried again before it is skipped after all."""


class Rounds:
    """Carries the plans of one strategy to the clients and the replies back.

    Parameters
    ----------
    strategy : ExpertStrategy

    Attributes
    ----------
    fleet : Fleet
    log : RunLog or None
        Where records go; None keeps nothing on the disk.
    run_name : str
        Under which clients keep their gates.
    completed : int
        Rounds done, skipped ones included.
    """

    def __init__(self, strategy: ExpertStrategy) -> None:
        self.strategy = strategy
        self.settings = strategy.settings
        budget = DeviceBudget(self.settings, strategy.spec, strategy.max_budget)
        self.fleet = Fleet(self.settings, budget)
        self.mailbox = Mailbox()
        self._opener = RoundOpener(strategy, self.fleet, self.mailbox)
        self.log: RunLog | None = None
        self.run_name = "run"
        self.num_rounds = self.settings.rounds.num_rounds
        self.completed = 0
        self.load_total: NDArray[np.int64] = np.zeros(
            strategy.spec.num_units, dtype=np.int64
        )
        self._checkpoints: Checkpoints | None = None
        self._told_fleet: dict[str, Any] = {}
        self._open: OpenRound | None = None

    def attach(self, log: RunLog) -> None:
        """Write every round to ``log``; go on from its newest checkpoint if it has one.

        Clients keep their gates under the run's name.
        """
        self.log, self.run_name = log, log.name
        self._checkpoints = Checkpoints(log.folder, self.settings.run.keep_checkpoints)
        if log.resumed and (state := self._checkpoints.newest()) is not None:
            self.load_state(state)
            if self.strategy.gate == "private" and not self.settings.run.state_dir:
                logger.warning(
                    "state-dir is empty: unless devices set their own, gates were in "
                    "memory and start afresh"
                )
        log.open(self.completed)

    def log_summary(self) -> None:
        """Log what will run, in Flower's tree style."""
        spec = self.strategy.spec
        logger.info("\t├──> Strategy: %s", self.strategy.name)
        logger.info(
            "\t├──> Model: %s, %d experts of %d bytes, extractor of %d bytes",
            spec.backbone,
            spec.num_units,
            spec.nbytes("expert.0"),
            spec.nbytes("extractor"),
        )
        logger.info("\t└──> Private: %s", self.strategy.private)

    def run(
        self,
        grid: Grid,
        num_rounds: int,
        timeout: float,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
    ) -> Result:
        """Run all rounds that are left and return Flower's result object."""
        self.log_summary()
        grid = PatientGrid(grid)
        self.num_rounds = num_rounds
        result = Result()
        try:
            while self.completed < num_rounds:
                server_round = self.completed + 1
                self._exchange(grid, server_round, timeout)
                server_metrics = None
                if evaluate_fn and self._evaluates(server_round):
                    # Finished first: what is evaluated is what the round produced.
                    self._finish()
                    server_metrics = evaluate_fn(server_round, self.strategy.arrays())
                record = self.close(server_metrics)
                result.train_metrics_clientapp[server_round] = record.to_metrics()
                if server_metrics is not None:
                    result.evaluate_metrics_serverapp[server_round] = server_metrics
        except Exception:
            if self.log is not None and self.completed:
                logger.error(
                    'stopped after round %d; to go on: resume-from="%s"',
                    self.completed,
                    self.log.folder,
                )
            raise
        result.arrays = self.strategy.arrays()
        return result

    def _exchange(self, grid: Grid, server_round: int, timeout: float) -> None:
        """Carry out one round, again if it was too short and policy says so."""
        repeats = REPEATS if self.settings.rounds.short_round == "repeat" else 0
        notes: list[str] = []
        rejected: dict[str, str] = {}
        for attempt in range(repeats + 1):
            messages = self.open(server_round, grid, attempt)
            # What earlier attempts met with belongs to the record of the round.
            self._current().notes.extend(notes)
            self._current().rejected.update(rejected)
            replies = self.mailbox.exchange(
                grid, messages, timeout, self._current().ask_anew
            )
            for reply in replies:
                if (again := self._current().ask_again(reply)) is not None:
                    messages.append(again)
                    continue
                self.accept(reply)
                if self._current().has_enough():
                    break
            replies.close()
            if not self._is_short() or attempt == repeats:
                return
            notes.append(f"attempt {attempt + 1} dropped: {self._shortage()}")
            self._abandon()
            rejected |= self._current().rejected

    def open(self, server_round: int, grid: Grid, attempt: int = 0) -> list[Message]:
        """Plan a round; return its messages, one per participant.

        Raises
        ------
        RuntimeError
            If no client can be reached within ``round-deadline``.
        """
        # Later rounds go on with whoever is there.
        needed = 1 if self.completed else self.settings.rounds.min_replies
        ready = self._opener.ready(server_round, grid, needed)
        self._tell_fleet()
        self._open, messages = self._opener.open(
            server_round,
            ready,
            run=self.run_name,
            attempt=attempt,
            evaluate=self._evaluates(server_round),
        )
        return messages

    def accept(self, message: Message) -> None:
        """Check one reply and merge it, or note why it was not."""
        current = self._current()
        if (judged := current.judge(message)) is not None:
            client, reply = judged
            self.fleet.update(client, reply.report)
            self.strategy.merge(reply)

    def close(self, server_metrics: MetricRecord | None = None) -> RoundRecord:
        """Finish the round: apply sums, learn, write its record and a checkpoint.

        Raises
        ------
        RuntimeError
            If the strategy made NaN of a part of its model; nothing is written then.
        """
        self._finish()
        current = self._current()
        late, self.mailbox.late = self.mailbox.late, 0
        layers = self.strategy.spec.num_layers
        record = current.record(self.load_total, server_metrics, late, layers)
        self._open = None
        self.completed = current.server_round
        if self.log is not None and self._checkpoints is not None:
            self.log.append(record, getattr(self.strategy, "fitness", None))
            self._checkpoints.save(self.completed, self.state())
        return record

    def _finish(self) -> None:
        current = self._current()
        if current.finished:
            return
        if self._is_short():
            current.notes.append(f"round not merged: {self._shortage()}")
            self._abandon()
            return
        self._note_answers()
        current.count()
        for reply in current.replies:
            self.fleet.clients[reply.client].merged_round = current.server_round
        self.load_total += current.load
        self.strategy.usage = self.strategy.usage + current.samples
        self.strategy.finish()
        self._refuse_nan()
        self.strategy.learn(current.replies)
        current.finished = True

    def _refuse_nan(self) -> None:
        """Stop rather than send on what no client can train; replies were checked."""
        # Infinity a strategy may mean: Fed-MoE's alpha without a main expert.
        parts = [p for p, v in self.strategy.model.items() if np.isnan(v).any()]
        if parts:
            raise RuntimeError(
                f"round {self._current().server_round}: strategy "
                f"{self.strategy.name!r} made NaN of {', '.join(parts[:3])}"
                f"{' and others' if parts[3:] else ''}; its training on the server "
                "may diverge at this learning rate"
            )

    def _is_short(self) -> bool:
        current = self._current()
        # A strategy that asks nobody needs nobody's reply.
        asked = bool(current.plan.assignment.any())
        return asked and len(current.replies) < self.settings.rounds.min_replies

    def _shortage(self) -> str:
        found, needed = len(self._current().replies), self.settings.rounds.min_replies
        reasons = sorted(set(self._current().rejected.values())) or ["no reply in time"]
        return f"{found} of at least {needed} replies ({'; '.join(reasons[:3])})"

    def _abandon(self) -> None:
        """Drop everything a short round merged so far."""
        self._note_answers()
        self.strategy.discard()
        self._current().replies.clear()

    def _note_answers(self) -> None:
        current = self._current()
        answered = {reply.client for reply in current.replies}
        enough = current.has_enough()
        missing = {client.row for client in current.missing()}
        for row in current.asked_rows():
            # Who was still at work when we had enough did not fail.
            if row in answered or not (enough and row in missing):
                self.fleet.clients[row].note(current.server_round, row in answered)

    def _tell_fleet(self) -> None:
        """Write who takes part into ``run.json`` when that has changed."""
        facts = self.fleet.facts()
        now = {"clients": list(facts["clients"]), "refused": facts["refused"]}
        if self.log is not None and now != self._told_fleet:
            self._told_fleet = now
            self.log.write_facts(**facts)

    def _current(self) -> OpenRound:
        if self._open is None:
            raise RuntimeError("no round is open")
        return self._open

    def _evaluates(self, server_round: int) -> bool:
        every = self.settings.rounds.eval_every
        return server_round % every == 0 or server_round == self.num_rounds

    def state(self) -> dict[str, Any]:
        """Return everything a resumed run needs to go on bit for bit."""
        return {
            "completed": self.completed,
            "model": dict(self.strategy.model),
            "strategy": self.strategy.state(),
            "load_total": self.load_total,
            "held": {str(row): experts for row, experts in self._opener.held.items()},
            "fleet": self.fleet.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.completed = state["completed"]
        self.strategy.model = dict(state["model"])
        self.strategy.load_state(state["strategy"])
        self.load_total = state["load_total"]
        self._opener.held = {
            int(row): experts for row, experts in state["held"].items()
        }
        self.fleet.load_state(state["fleet"])
