"""The round loop: plan, push, merge each reply as it lands, log, checkpoint.

One exchange a round; evaluation rides in the train reply. This is where a strategy
meets Flower: everything here is the same for every algorithm, and no algorithm is here.

A round that gets fewer than ``min-replies`` is repeated or skipped, never half-merged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from common import wire
from common.moe import Vector
from common.seeding import stream
from common.wire import TrainOrder
from server_app.checkpoint import Checkpoints
from server_app.fleet import Client, Fleet
from server_app.mailbox import Mailbox
from server_app.open_round import Asked, OpenRound
from server_app.record import RoundRecord
from server_app.runlog import RunLog
from server_app.strategies.contract import Plan, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from server_app.strategies.base import ExpertStrategy

logger = logging.getLogger("flwr.expertfleet")

WAIT_SECONDS = 1.0

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
        self.fleet = Fleet(self.settings, strategy.max_budget)
        self.mailbox = Mailbox()
        self.log: RunLog | None = None
        self.run_name = "run"
        self.num_rounds = self.settings.rounds.num_rounds
        self.completed = 0
        self.load_total: NDArray[np.int64] = np.zeros(
            strategy.spec.num_experts, dtype=np.int64
        )
        self._checkpoints: Checkpoints | None = None
        self._held: dict[int, list[int]] = {}
        self._told_fleet = 0
        self._wanted = 0
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
            spec.num_experts,
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
            replies = self.mailbox.exchange(grid, messages, timeout)
            for reply in replies:
                self.accept(reply)
                if self._wanted and len(self._current().replies) >= self._wanted:
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
        rounds = self.settings.rounds
        ready = self._ready(server_round, grid)
        self._tell_fleet()
        clients = self._sample(server_round, ready)
        plan = self.strategy.plan(self._view(server_round, clients))
        current = OpenRound(server_round, plan, self.settings.merge.max_update)
        self._open = current
        packed: dict[int, Array] = {}

        def pack(vector: Vector) -> Array:
            # Content-addressed by Flower: one object for all who get the same vector.
            key = id(vector)
            if key not in packed:
                packed[key] = wire.pack_array(vector)
            return packed[key]

        messages = []
        for position, client in enumerate(clients):
            experts = np.flatnonzero(plan.assignment[position]).tolist()
            if not experts:
                continue
            order = self._order(server_round, attempt, client, experts, plan)
            parts = plan.content.get(client.row) or {
                name: self.strategy.model[name]
                for name in self.strategy.parts_for(experts)
            }
            message = Message(
                wire.encode_order(order, {k: pack(v) for k, v in parts.items()}),
                client.node_id,
                "train",
                group_id=str(server_round),
                ttl=rounds.round_deadline,
            )
            current.expect(Asked(client, order, parts), wire.message_bytes(message))
            self._held[client.row] = experts
            messages.append(message)
        return messages

    def _ready(self, server_round: int, grid: Grid) -> list[Client]:
        """Return the clients to plan with; the first round waits for min-replies."""
        needed = 1 if self.completed else self.settings.rounds.min_replies
        seconds = self.settings.rounds.round_deadline
        deadline = time.monotonic() + seconds
        while True:
            exchange = self.mailbox.exchange
            ready = self.fleet.refresh(grid, exchange, server_round, seconds)
            over = time.monotonic() > deadline
            if len(ready) >= needed or (ready and (over or self.fleet.refused)):
                return ready
            if over or self.fleet.refused:
                raise RuntimeError(
                    "no client can take part: "
                    f"{self.fleet.refused or 'none is connected'}"
                )
            logger.info("waiting for clients")
            time.sleep(WAIT_SECONDS)

    def accept(self, message: Message) -> None:
        """Check one reply and merge it, or note why it was not."""
        current = self._current()
        if (judged := current.judge(message)) is not None:
            client, reply = judged
            self.fleet.update(client, reply.report)
            self.strategy.merge(reply)

    def close(self, server_metrics: MetricRecord | None = None) -> RoundRecord:
        """Finish the round: apply sums, learn, write its record and a checkpoint."""
        self._finish()
        current = self._current()
        late, self.mailbox.late = self.mailbox.late, 0
        record = current.record(self.load_total, server_metrics, late)
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
        self.load_total += current.load
        self.strategy.usage = self.strategy.usage + current.samples
        self.strategy.finish()
        self.strategy.learn(current.replies)
        current.finished = True

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
        enough = bool(self._wanted) and len(answered) >= self._wanted
        missing = {client.row for client in current.missing()}
        for row in current.asked_rows():
            # Who was still at work when we had enough did not fail.
            if row in answered or not (enough and row in missing):
                self.fleet.clients[row].note(current.server_round, row in answered)

    def _tell_fleet(self) -> None:
        """Write who takes part into ``run.json`` when that has changed."""
        if self.log is None or self._told_fleet == len(self.fleet):
            return
        self._told_fleet = len(self.fleet)
        profiles = [client.profile for client in self.fleet.clients]
        self.log.write_facts(
            partition_hash=sorted({p.partition_hash for p in profiles}),
            clients={
                client.name: {
                    "budget": self.fleet.budget(client),
                    **client.profile.model_dump(),
                }
                for client in self.fleet.clients
            },
            refused=self.fleet.refused,
        )

    def _current(self) -> OpenRound:
        if self._open is None:
            raise RuntimeError("no round is open")
        return self._open

    def _evaluates(self, server_round: int) -> bool:
        every = self.settings.rounds.eval_every
        return server_round % every == 0 or server_round == self.num_rounds

    def _sample(self, server_round: int, ready: list[Client]) -> list[Client]:
        """Choose the participants; sets how many replies are wanted, 0 for all."""
        self._wanted = 0
        rounds = self.settings.rounds
        if not rounds.clients_per_round or rounds.clients_per_round >= len(ready):
            return ready
        asked = ceil((1 + rounds.over_selection) * rounds.clients_per_round)
        if asked > rounds.clients_per_round:
            self._wanted = rounds.clients_per_round
        rng = stream(self.settings.run.seed, "sample", server_round)
        rows = np.array([client.row for client in ready], dtype=np.int64)
        if asked >= len(rows):
            return ready
        chosen = set(self.strategy.sample(rows, asked, rng).tolist())
        return [client for client in ready if client.row in chosen]

    def _view(self, server_round: int, clients: list[Client]) -> View:
        experts = self.strategy.spec.num_experts
        previous = np.zeros((len(clients), experts), dtype=np.bool_)
        for position, client in enumerate(clients):
            previous[position, self._held.get(client.row, [])] = True
        budgets = [self.fleet.budget(client) for client in clients]
        return View(
            server_round=server_round,
            clients=np.array([client.row for client in clients], dtype=np.int64),
            num_clients=len(self.fleet),
            budgets=np.array(budgets, dtype=np.int64),
            previous=previous,
            availability=np.array([client.availability for client in clients]),
            profiles=tuple(client.profile for client in clients),
            rng=stream(self.settings.run.seed, "plan", server_round),
        )

    def _order(
        self,
        server_round: int,
        attempt: int,
        client: Client,
        experts: list[int],
        plan: Plan,
    ) -> TrainOrder:
        fields: dict[str, Any] = {
            "run": self.run_name,
            "server_round": server_round,
            "attempt": attempt,
            "experts": experts,
            "num_experts": self.strategy.spec.num_experts,
            "top_k": self.strategy.spec.top_k,
            "mixes": self.strategy.spec.mixes,
            "gate": self.strategy.gate,
            "evaluate": self._evaluates(server_round),
        }
        special = plan.client_order.get(client.row, {})
        return TrainOrder(**{**fields, **plan.order, **special})

    def state(self) -> dict[str, Any]:
        """Return everything a resumed run needs to go on bit for bit."""
        return {
            "completed": self.completed,
            "model": dict(self.strategy.model),
            "strategy": self.strategy.state(),
            "load_total": self.load_total,
            "held": {str(row): experts for row, experts in self._held.items()},
            "fleet": self.fleet.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.completed = state["completed"]
        self.strategy.model = dict(state["model"])
        self.strategy.load_state(state["strategy"])
        self.load_total = state["load_total"]
        self._held = {int(row): experts for row, experts in state["held"].items()}
        self.fleet.load_state(state["fleet"])
