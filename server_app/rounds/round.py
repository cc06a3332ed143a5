"""The round under way: who was asked what, who answered, and what is merged of it.

Which replies are accepted is decided in ``server_app.rounds.intake``; a reply that is
not is noted here with its reason and never merged. What is measured of a round is in
``server_app.rounds.measure_exchange``.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from common import wire
from common.moe import Vector
from common.wire import QueryReply, WireError
from server_app.contract import Algorithm, Plan, Reply
from server_app.fleet.client_domains import domain_of
from server_app.rounds import intake
from server_app.rounds.asking_again import asked_again
from server_app.rounds.orders import SentOrder, flaw
from server_app.rounds.record import ClientRound
from server_app.run_error import RunError

logger = logging.getLogger("flwr.expertfleet")


class Round:
    """One attempt at a round, from its plan to its record.

    Parameters
    ----------
    strategy : Algorithm
        Whose plan it carries out.
    server_round : int
    plan : Plan
    wanted : int
        Replies that are enough where more clients were asked; 0 waits for all.
    one_test_set : bool
        Whether all who are asked measure ``client_global`` on one and the same.
    notes : sequence of str
        For the record.
    shortage : str
        Why nobody is asked, if too few clients are there.
    earlier : Round or None
        The attempt before this one.

    Attributes
    ----------
    merged : bool
        Whether it changed anything.
    dropped : list of str
        Why each attempt so far was dropped.
    replies : list of Reply
        Accepted so far, without deltas.
    rejected : dict of str to str
        Clients whose reply does not count, in any attempt, with the reason.
    answered : dict of int to bool
        Whether each client, by row, answered in any attempt.
    plan : Plan
    clients : dict of int to ClientRound
        Who was asked in this attempt, by row, and what each did.
    notes : list of str
        For the record.
    warned : dict of str to list of str
        What clients warned of, with their names.
    started : float
        When this attempt began, on the performance counter.
    """

    def __init__(
        self,
        strategy: Algorithm,
        server_round: int,
        plan: Plan,
        *,
        wanted: int = 0,
        one_test_set: bool = True,
        notes: Sequence[str] = (),
        shortage: str = "",
        earlier: "Round | None" = None,
    ) -> None:
        self.server_round = server_round
        self.merged = self._finished = False
        self.dropped: list[str] = earlier.dropped if earlier else []
        self.rejected: dict[str, str] = earlier.rejected if earlier else {}
        self.answered: dict[int, bool] = earlier.answered if earlier else {}
        self.plan = plan
        self.clients: dict[int, ClientRound] = {}
        self.notes = [*plan.notes, *notes, *self.dropped]
        self.warned: dict[str, list[str]] = {}
        self.started = time.perf_counter()
        self.replies: list[Reply] = []
        self._strategy = strategy
        self._settings = strategy.settings
        self._needed = self._settings.rounds.min_replies
        self._wanted = wanted
        self._one_test_set = one_test_set
        self._no_clients = shortage
        self._failures: list[Exception] = []
        self._waiting: dict[int, SentOrder] = {}
        self._sizes: dict[int, int] = {}  # of the last message to each node

    def ask(self, sent: SentOrder) -> Message:
        """Expect an answer of a client from now on; return the message to it."""
        message = sent.message()
        self._waiting[sent.client.node_id] = sent
        asked = self.clients.setdefault(
            sent.client.row,
            ClientRound(
                client=sent.client.name,
                experts=sent.order.experts,
                budget=sent.budget,
                domain=self._domain(sent.client.profile),
            ),
        )
        self._sizes[sent.client.node_id] = wire.message_bytes(message)
        asked.bytes_down += self._sizes[sent.client.node_id]
        return message

    def _domain(self, profile: QueryReply) -> str | None:
        domain = domain_of(self._settings, profile)
        return None if domain is None else str(domain)

    def resend_missing(self, message: Message) -> Message | None:
        """Return what a client is sent that lacks parts, or the base, of its model.

        None if this reply does not say so; see ``server_app.rounds.asking_again``.
        """
        sent = self._waiting.get(message.metadata.src_node_id)
        if sent is None or not wire.asks_for_more(message):
            return None
        if (again := asked_again(message, sent)) is None:
            return None
        order, notes = again
        self.clients[sent.client.row].bytes_up += wire.message_bytes(message)
        self.notes += notes
        return self.ask(order)

    def resend_lost(self, node: int) -> Message | None:
        """Return the order again for a device that lost it, or whose reply was lost.

        None if that has happened ``LOSSES`` times in this round. What it had in its
        cache it may have lost as well, and then says so.
        """
        sent = self._waiting.get(node)
        if sent is None or (again := sent.after_loss()) is None:
            return None
        self.notes.append(f"{sent.client.name}: lost on the way, asked again")
        return self.ask(again)

    def accept(self, message: Message) -> None:
        """Merge a reply, or note why it does not count.

        A second reply of the same client, or one of another round, finds nobody asked.
        """
        node = message.metadata.src_node_id
        sent = self._waiting.get(node)
        if sent is None or message.metadata.group_id != str(self.server_round):
            self.rejected[f"node {node}"] = "was not asked"
            return
        del self._waiting[node]
        client = sent.client
        try:
            report, deltas = intake.read(message, sent)
            client.claim(more=intake.claims_more(report, sent))
            report = intake.counted(report, sent)
            intake.check(sent, report, deltas, self._settings.merge.max_update)
            reply = Reply(
                client=client.row, order=sent.order, report=report, deltas=deltas
            )
            self._merge(reply)
        except WireError as error:
            if isinstance(error, intake.CacheLostError):
                client.forget_cache()
            self.rejected[client.name] = str(error)
            return
        self.replies.append(replace(reply, deltas={}))
        asked, bytes_up = self.clients[client.row], wire.message_bytes(message)
        local = wire.local_counts(report, self._strategy.spec.num_classes)
        held_out = 0 if local is None else local.total
        asked.add_reply(report, bytes_up, time.monotonic() - sent.sent_at, held_out)
        if not self._one_test_set:
            asked.client_global = None
        client.observe(
            asked.seconds_until_reply, asked.seconds, self._sizes[node] + bytes_up
        )
        client.take_report(report)
        for warning in report.warnings:
            self.warned.setdefault(warning, []).append(client.name)

    def _merge(self, reply: Reply) -> None:
        """Merge a reply; raises WireError if that failed."""
        try:
            with self._strategy.sums.whole():
                self._strategy.merge(reply)
        except Exception as error:
            if not self._failures:
                logger.warning("a reply cannot be merged", exc_info=error)
            self._failures.append(error)
            raise WireError(
                f"cannot be merged: {type(error).__name__}: {error}"
            ) from None

    def silent(self) -> set[int]:
        """Return the clients, by row, that were asked and have not answered yet."""
        return {sent.client.row for sent in self._waiting.values()}

    def has_enough(self) -> bool:
        """Whether nobody need be waited for, though more were asked."""
        return 0 < self._wanted <= len(self.replies)

    def is_short(self) -> bool:
        """Whether it has too few replies; one that asks nobody needs nobody's."""
        asks = bool(self.plan.assignment.any() or self._no_clients)
        return asks and len(self.replies) < self._needed

    def shortage(self) -> str:
        """Return why it is short."""
        if self._no_clients:
            return f"fewer than {self._needed} clients were there: {self._no_clients}"
        reasons = sorted(set(self.rejected.values())) or ["no reply in time"]
        return (
            f"{len(self.replies)} of at least {self._needed} replies "
            f"({'; '.join(reasons[:3])})"
        )

    def finish(self) -> None:
        """Apply what was merged and let the strategy learn, once; drop a short round.

        Raises
        ------
        RunError
            If the strategy made NaN of a part of its model, or no vector as before.
        """
        if self._finished:
            return
        self._finished = True
        if self.is_short():
            self.notes.append(f"round not merged: {self.shortage()}")
            self.drop()
            return
        strategy = self._strategy
        self._note_answers()
        self.replies.sort(key=lambda reply: reply.client)
        strategy.usage = strategy.usage + self.samples()
        before = dict(strategy.model)
        strategy.finish()
        _check_model(strategy, before, self.server_round)
        strategy.average.add(strategy.model)
        strategy.learn(self.replies)
        # A strategy may train on the server alone.
        self.merged = bool(self.replies) or not all(
            np.array_equal(vector, before.get(part, ()))
            for part, vector in strategy.model.items()
        )
        if not self.merged:
            self.notes.append("nobody was asked, and the model is what it was")

    def drop(self) -> None:
        """Drop everything that was merged so far.

        Raises
        ------
        Exception
            What merging failed with, if it failed for several clients and all. One
            reply that cannot be merged is its sender's loss; where none of several
            can, it is the strategy that is wrong.
        """
        if len(self._failures) > 1 and not self.replies:
            raise self._failures[0]
        self._note_answers()
        self._strategy.discard()
        self.replies.clear()

    def _note_answers(self) -> None:
        """Note who answered, and who did not in time."""
        silent = self.silent()
        for sent in self._waiting.values():
            self.rejected.setdefault(sent.client.name, "no reply in time")
        replied, enough = {reply.client for reply in self.replies}, self.has_enough()
        for row in self.clients:
            # Who was still at work when we had enough did not fail.
            if row in replied or not (enough and row in silent):
                self.answered[row] = self.answered.get(row, False) or row in replied

    def load(self) -> NDArray[np.int64]:
        """Return how many clients held each expert and replied, shape (E,)."""
        load = np.zeros(self.plan.assignment.shape[1], dtype=np.int64)
        for reply in self.replies:
            load[reply.experts] += 1
        return load

    def samples(self) -> NDArray[np.int64]:
        """Return the samples they routed to each expert, shape (E,)."""
        samples = np.zeros(self.plan.assignment.shape[1], dtype=np.int64)
        for reply in self.replies:
            samples[reply.experts] += reply.samples
        return samples


def _check_model(
    strategy: Algorithm, before: Mapping[str, Vector], server_round: int
) -> None:
    """Stop rather than send on what no client can train; replies were checked."""
    who = f"round {server_round}: strategy {strategy.name!r}"
    if others := sorted(strategy.model.keys() ^ before.keys()):
        raise RunError(f"{who} added or dropped parts of its model: {others[:3]}")
    for part, vector in before.items():
        if wrong := flaw(strategy.model[part], vector.size):
            raise RunError(f"{who}: part {part} of its model {wrong}")
    usage = np.asarray(strategy.usage)
    if usage.shape != (strategy.spec.num_units,) or not (
        np.isfinite(usage).all() and (usage >= 0).all()
    ):
        raise RunError(
            f"{who}: its usage is {usage.tolist()!r:.100}, expected "
            f"{strategy.spec.num_units} numbers from 0 on"
        )
    # Infinity a strategy may mean in a part of its own: Fed-MoE's alpha without a main
    # expert. Clients refuse it.
    sent = set(strategy.spec.part_names())
    parts = [
        part
        for part, v in strategy.model.items()
        if np.isnan(v).any() or (part in sent and np.isinf(v).any())
    ]
    if parts:
        raise RunError(
            f"{who} made NaN or infinity of "
            f"{', '.join(parts[:3])}{' and others' if parts[3:] else ''}; its training "
            "on the server may diverge at this learning rate"
        )
