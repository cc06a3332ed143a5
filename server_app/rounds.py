"""The round loop: plan, push, merge each reply as it lands, log.

One exchange a round; evaluation rides in the train reply. This is where a strategy
meets Flower: everything here is the same for every algorithm, and no algorithm is here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from common import wire
from common.code_hash import code_hash
from common.metrics import coefficient_of_variation
from common.moe import Vector
from common.seeding import stream
from common.wire import TrainOrder, WireError
from server_app.fleet import Client, Fleet
from server_app.runlog import ClientRound, RoundRecord, RunLog
from server_app.strategies.base import ExpertStrategy, Plan, Reply, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("flwr.expertfleet")

POLL_SECONDS = 0.1


def exchange(grid: Grid, messages: list[Message], timeout: float) -> Iterator[Message]:
    """Push messages and yield their replies as they land, until all or the timeout.

    Parameters
    ----------
    messages : list of Message
        A list, not a generator: deployments answer a generator with HTTP 500.
    timeout : float
        Seconds.
    """
    pending = set(grid.push_messages(messages))
    deadline = time.monotonic() + timeout
    while pending:
        landed = False
        for reply in grid.pull_messages(sorted(pending)):
            pending.discard(reply.metadata.reply_to_message_id)
            landed = True
            yield reply
        if pending and not landed:
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)


class Rounds:
    """Carries the plans of one strategy to the clients and the replies back.

    Parameters
    ----------
    strategy : ExpertStrategy

    Attributes
    ----------
    fleet : Fleet
    log : RunLog or None
        Where records go; None keeps them in memory only.
    run_name : str
        Under which clients keep their gates.
    """

    def __init__(self, strategy: ExpertStrategy) -> None:
        self.strategy = strategy
        self.settings = strategy.settings
        self.fleet = Fleet(self.settings, strategy.spec.num_experts)
        self.log: RunLog | None = None
        self.run_name = "run"
        self.num_rounds = self.settings.rounds.num_rounds
        self.load_total = np.zeros(strategy.spec.num_experts, dtype=np.int64)
        self._held: dict[int, list[int]] = {}
        self._told_fleet = 0
        self._open: _OpenRound | None = None

    def attach(self, log: RunLog) -> None:
        """Write every round to ``log``; clients keep their gates under its name."""
        self.log, self.run_name = log, log.name
        log.open()

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
        """Run all rounds and return Flower's result object."""
        self.log_summary()
        self.num_rounds = num_rounds
        result = Result()
        for server_round in range(1, num_rounds + 1):
            for reply in exchange(grid, self.open(server_round, grid), timeout):
                self.accept(reply)
            server_metrics = None
            if evaluate_fn and self._evaluates(server_round):
                # Finished first: what is evaluated is what the round produced.
                self._finish()
                server_metrics = evaluate_fn(server_round, self.strategy.arrays())
            record = self.close(server_metrics)
            result.train_metrics_clientapp[server_round] = record.to_metrics()
            if server_metrics is not None:
                result.evaluate_metrics_serverapp[server_round] = server_metrics
        result.arrays = self.strategy.arrays()
        return result

    def open(self, server_round: int, grid: Grid) -> list[Message]:
        """Plan a round; return its messages, one per participant.

        Raises
        ------
        RuntimeError
            If no client can be reached.
        """
        deadline = self.settings.rounds.round_deadline
        online = self.fleet.refresh(grid, exchange, deadline)
        started = time.perf_counter()
        if not online:
            raise RuntimeError(
                f"no client can take part: {self.fleet.refused or 'none is connected'}"
            )
        self._tell_fleet()
        clients = self._sample(server_round, online)
        view = self._view(server_round, clients)
        plan = self.strategy.plan(view)
        self._open = _OpenRound(server_round, plan, started)
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
            order = self._order(server_round, client, experts, plan)
            parts = plan.content.get(client.row) or {
                name: self.strategy.model[name]
                for name in self.strategy.parts_for(experts)
            }
            message = Message(
                wire.encode_order(order, {k: pack(v) for k, v in parts.items()}),
                client.node_id,
                "train",
                group_id=str(server_round),
                ttl=deadline,
            )
            self._open.expect(client, order, parts, wire.message_bytes(message))
            self._held[client.row] = experts
            messages.append(message)
        return messages

    def accept(self, message: Message) -> None:
        """Check one reply and merge it, or note why it was not."""
        current = self._current()
        asked = current.asked.get(message.metadata.src_node_id)
        if asked is None or message.metadata.group_id != str(current.server_round):
            current.rejected[f"node {message.metadata.src_node_id}"] = "was not asked"
            return
        if message.has_error():
            current.rejected[asked.client.name] = (
                f"error {message.error.code}: {message.error.reason}"
            )
            return
        try:
            report, deltas = wire.decode_report(message.content)
            if report.code_hash != code_hash():
                raise WireError(f"runs other code ({report.code_hash})")
            if report.client != asked.client.name:
                raise WireError(f"calls itself {report.client!r}")
            wire.check_report(asked.order, report, deltas, asked.sizes)
        except WireError as error:
            current.rejected[asked.client.name] = str(error)
            logger.warning("reply of %s rejected: %s", asked.client.name, error)
            return
        # A second reply of the same client finds nobody asked.
        del current.asked[message.metadata.src_node_id]
        reply = Reply(
            client=asked.client.row, order=asked.order, report=report, deltas=deltas
        )
        self.strategy.merge(reply)
        current.replies.append(
            Reply(client=asked.client.row, order=asked.order, report=report)
        )
        current.stats[asked.client.row].add_reply(report, wire.message_bytes(message))

    def close(self, server_metrics: MetricRecord | None = None) -> RoundRecord:
        """Finish the round: apply sums, learn, and write its record."""
        current = self._current()
        self._finish()
        for asked in current.asked.values():
            current.rejected.setdefault(asked.client.name, "no reply in time")
        record = current.record(self.load_total, server_metrics)
        self._open = None
        if self.log is not None:
            fitness = getattr(self.strategy, "fitness", None)
            self.log.append(record, fitness)
        return record

    def _tell_fleet(self) -> None:
        """Write who takes part into ``run.json`` when that has changed."""
        if self.log is None or self._told_fleet == len(self.fleet):
            return
        self._told_fleet = len(self.fleet)
        profiles = [client.profile for client in self.fleet.clients]
        self.log.open(
            partition_hash=sorted({p.partition_hash for p in profiles}),
            clients={
                client.name: {"budget": client.budget, **client.profile.model_dump()}
                for client in self.fleet.clients
            },
            refused=self.fleet.refused,
        )

    def _finish(self) -> None:
        current = self._current()
        if current.finished:
            return
        current.finished = True
        current.replies.sort(key=lambda reply: reply.client)
        for reply in current.replies:
            self.load_total[reply.experts] += 1
            current.load[reply.experts] += 1
            current.samples[reply.experts] += reply.samples
        self.strategy.usage = self.strategy.usage + current.samples
        self.strategy.finish()
        self.strategy.learn(current.replies)

    def _current(self) -> _OpenRound:
        if self._open is None:
            raise RuntimeError("no round is open")
        return self._open

    def _evaluates(self, server_round: int) -> bool:
        every = self.settings.rounds.eval_every
        return server_round % every == 0 or server_round == self.num_rounds

    def _sample(self, server_round: int, online: list[Client]) -> list[Client]:
        wanted = self.settings.rounds.clients_per_round
        if not wanted or wanted >= len(online):
            return online
        rng = stream(self.settings.run.seed, "sample", server_round)
        chosen = np.sort(rng.choice(len(online), size=wanted, replace=False))
        return [online[i] for i in chosen]

    def _view(self, server_round: int, clients: list[Client]) -> View:
        experts = self.strategy.spec.num_experts
        previous = np.zeros((len(clients), experts), dtype=np.bool_)
        for position, client in enumerate(clients):
            previous[position, self._held.get(client.row, [])] = True
        return View(
            server_round=server_round,
            clients=np.array([client.row for client in clients], dtype=np.int64),
            num_clients=len(self.fleet),
            budgets=np.array([client.budget for client in clients], dtype=np.int64),
            previous=previous,
            rng=stream(self.settings.run.seed, "plan", server_round),
        )

    def _order(
        self, server_round: int, client: Client, experts: list[int], plan: Plan
    ) -> TrainOrder:
        fields: dict[str, Any] = {
            "run": self.run_name,
            "server_round": server_round,
            "experts": experts,
            "num_experts": self.strategy.spec.num_experts,
            "top_k": self.strategy.spec.top_k,
            "gate": self.strategy.gate,
            "evaluate": self._evaluates(server_round),
        }
        special = plan.client_order.get(client.row, {})
        return TrainOrder(**{**fields, **plan.order, **special})


class _Asked:
    """What one participant was sent."""

    def __init__(
        self, client: Client, order: TrainOrder, parts: dict[str, Vector]
    ) -> None:
        self.client = client
        self.order = order
        self.sizes = {name: vector.size for name, vector in parts.items()}


class _OpenRound:
    """Book-keeping of the round under way."""

    def __init__(self, server_round: int, plan: Plan, started: float) -> None:
        experts = plan.assignment.shape[1]
        self.server_round = server_round
        self.plan = plan
        self.started = started
        self.finished = False
        self.asked: dict[int, _Asked] = {}
        self.replies: list[Reply] = []
        self.rejected: dict[str, str] = {}
        self.stats: dict[int, ClientRound] = {}
        self.load: NDArray[np.int64] = np.zeros(experts, dtype=np.int64)
        self.samples: NDArray[np.int64] = np.zeros(experts, dtype=np.int64)

    def expect(
        self, client: Client, order: TrainOrder, parts: Any, bytes_down: int
    ) -> None:
        self.asked[client.node_id] = _Asked(client, order, parts)
        self.stats[client.row] = ClientRound(
            client=client.name, experts=order.experts, bytes_down=bytes_down
        )

    def record(
        self, load_total: NDArray[np.int64], server_metrics: MetricRecord | None
    ) -> RoundRecord:
        solution = self.plan.solution
        server_global = None
        if server_metrics is not None and "server_global" in server_metrics:
            server_global = float(server_metrics["server_global"])  # type: ignore[arg-type]
        return RoundRecord(
            round=self.server_round,
            server_global=server_global,
            cv_round=coefficient_of_variation(self.load),
            cv_cumulative=coefficient_of_variation(load_total),
            cv_samples=coefficient_of_variation(self.samples),
            load=self.load.tolist(),
            samples=self.samples.tolist(),
            seconds=time.perf_counter() - self.started,
            solver=None
            if solution is None
            else {
                "name": solution.solver,
                "status": solution.status,
                "seconds": solution.seconds,
                "objective": solution.objective,
                "bound": solution.bound,
            },
            notes=list(self.plan.notes),
            rejected=self.rejected,
            clients=[self.stats[row] for row in sorted(self.stats)],
        )
