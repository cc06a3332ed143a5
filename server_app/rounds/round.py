"""The round under way: who was asked what, and who answered.

Which replies are accepted is decided in ``server_app.rounds.intake``; a reply that is
not is noted here with its reason and never merged. What is merged, and what comes of
it, is in ``server_app.rounds.outcome``; what is measured of a round is in
``server_app.rounds.measure_exchange``.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from flwr.app import Message

from common import wire
from common.wire import QueryReply, WireError
from server_app.contract import Algorithm, Plan
from server_app.fleet.client import Client
from server_app.fleet.client_domains import domain_of
from server_app.rounds import intake
from server_app.rounds.asking_again import asked_again
from server_app.rounds.client_round import ClientRound
from server_app.rounds.orders import SentOrder
from server_app.rounds.outcome import Outcome, mostly_refused, too_few
from server_app.rounds.private_round import PrivateRound

NOBODY: Mapping[int, SentOrder] = MappingProxyType({})


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
    no_clients : str
        Why nobody is asked, if too few clients are there.
    earlier : Round or None
        The attempt before this one.
    private : PrivateRound or None
        What of it may be told, in a run with differential privacy. Then a round that
        asks for replies is merged however few come: whether it is must say nothing of
        anybody.
    out : mapping of int to SentOrder
        By node, orders of before that are still out, where late replies are merged.
        What has come of an attempt before this one is then kept, too.
    given_up : sequence of (SentOrder, str)
        Such orders whose replies are waited for no more, with the reason.

    Attributes
    ----------
    outcome : Outcome
        What has been merged.
    dropped : list of str
        Why each attempt so far was dropped.
    rejected : dict of str to str
        Clients whose reply does not count, in any attempt, with the reason.
    refused : set of str
        Of them, whose reply could be read in this attempt and breaks a rule or a bound.
        With differential privacy nothing may hang on that, and it stays empty.
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
    deadline : float
        Seconds it waits for replies, by the links of those it asks; 0 where settings
        say how many.
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
        no_clients: str = "",
        earlier: "Round | None" = None,
        private: PrivateRound | None = None,
        out: Mapping[int, SentOrder] = NOBODY,
        given_up: Sequence[tuple[SentOrder, str]] = (),
    ) -> None:
        self.private = private
        self.server_round = server_round
        self.outcome = Outcome(strategy)
        self.dropped: list[str] = earlier.dropped if earlier else []
        self.rejected: dict[str, str] = earlier.rejected if earlier else {}
        self.answered: dict[int, bool] = earlier.answered if earlier else {}
        self.refused: set[str] = set()
        self.plan = plan
        self.clients: dict[int, ClientRound] = {}
        self.notes = [*plan.notes, *notes, *self.dropped]
        self.warned: dict[str, list[str]] = {}
        self.started = time.perf_counter()
        self.deadline = 0.0
        self._strategy = strategy
        self._settings = strategy.settings
        self._needed = 0 if private else self._settings.rounds.min_replies
        self._wanted = wanted
        self._one_test_set = one_test_set
        self._no_clients = no_clients
        self._waiting: dict[int, SentOrder] = dict(out)
        # A round that asks nobody, and waits for nobody, needs nobody's replies.
        self._needs_replies = bool(plan.assignment.any() or out or no_clients)
        self._merges_late = self._settings.rounds.merges_late
        self._finished = self._dropped = False
        for sent, why in given_up:
            self._lose(sent.client, why)
        if self._merges_late and earlier is not None:
            self._go_on(earlier)

    def _go_on(self, earlier: "Round") -> None:
        """Keep what came of an attempt that was not dropped."""
        self.clients = earlier.clients
        if not earlier._dropped:
            self.outcome.go_on(earlier.outcome)
            self.refused = earlier.refused

    def ask(self, sent: SentOrder) -> Message:
        """Expect an answer of a client from now on; return the message to it."""
        self._needs_replies = True
        message = sent.message()
        sent = replace(sent, bytes_sent=wire.message_bytes(message))
        self._waiting[sent.client.node_id] = sent
        self._asked(sent).bytes_down += sent.bytes_sent
        return message

    def _asked(self, sent: SentOrder) -> ClientRound:
        """Return what this round remembers of a client that was sent an order."""
        return self.clients.setdefault(
            sent.client.row,
            ClientRound(
                client=sent.client.name,
                experts=sent.order.experts,
                budget=sent.budget,
                order_round=sent.server_round,
                domain=self._domain(sent.client.profile),
            ),
        )

    def _lose(self, client: Client, why: str) -> None:
        """Note that no reply of a client counts, unless it has another."""
        self.rejected[client.name] = why
        self.answered.setdefault(client.row, False)

    def _domain(self, profile: QueryReply) -> str | None:
        domain = domain_of(self._settings, profile)
        return None if domain is None else str(domain)

    def resend_missing(self, message: Message) -> Message | None:
        """Return what a client is sent that lacks parts, or the base, of its model.

        None if this reply does not say so; see ``server_app.rounds.asking_again``.
        """
        node = message.metadata.src_node_id
        sent = self._waiting.get(node)
        if sent is None or not wire.asks_for_more(message):
            return None
        if (again := asked_again(message, sent)) is None:
            return None
        order, notes = again
        if self._is_late(sent):  # it is asked for something newer instead
            return None
        self.clients[sent.client.row].bytes_up += wire.message_bytes(message)
        self.notes += notes
        return self.ask(order)

    def resend_lost(self, node: int) -> Message | None:
        """Return the order again for a device that lost it, or whose reply was lost.

        None if that has happened ``LOSSES`` times in this round, or to an order of an
        earlier one. What it had in its cache it may have lost as well, and then says
        so.
        """
        sent = self._waiting.get(node)
        if sent is None or self._is_late(sent) or (again := sent.after_loss()) is None:
            return None
        self.notes.append(f"{sent.client.name}: lost on the way, asked again")
        return self.ask(again)

    def accept(self, message: Message) -> None:
        """Merge a reply, or note why it does not count.

        A second reply to the same order, or one to an order that is not out, finds
        nobody asked.
        """
        node = message.metadata.src_node_id
        sent = self._waiting.get(node)
        if sent is None or message.metadata.group_id != str(sent.server_round):
            self.rejected[f"node {node}"] = "was not asked"
            return
        del self._waiting[node]
        client, readable = sent.client, False
        try:
            report, deltas = intake.read(message, sent)
            readable = True
            if self.private is not None:
                report = self.private.heard(report)
            client.claim(more=intake.claims_more(report, sent))
            most, bounds = self._settings.merge.max_update, self._strategy.bounds
            accepted = intake.accepted(report, deltas, sent, most, bounds)
            self.outcome.merge(accepted.reply, accepted.changes, sent.moves)
        except WireError as error:
            if isinstance(error, intake.CacheLostError):
                client.forget_cache()
            self._lose(client, str(error))
            if readable and self.private is None:
                self.refused.add(client.name)
            return
        self._note(accepted, sent, wire.message_bytes(message))

    def _note(self, accepted: intake.Accepted, sent: SentOrder, bytes_up: int) -> None:
        """Note what a reply says that was merged, for the record and of the client."""
        client, report, asked = sent.client, accepted.report, self._asked(sent)
        elapsed = time.monotonic() - sent.sent_at
        if self.private is not None and self.private.leaves_out:
            asked.note_reply(report, bytes_up, elapsed)
        else:
            local = wire.local_counts(report, self._strategy.spec.num_classes)
            held_out = 0 if local is None else local.total
            asked.add_reply(report, bytes_up, elapsed, held_out)
        asked.cut = accepted.cuts
        if not self._one_test_set:
            asked.client_global = None
        client.observe(
            asked.seconds_until_reply, asked.seconds, sent.bytes_sent + bytes_up
        )
        client.take_cache(report)
        if self.private is None or not self.private.is_drawn:
            client.take_memory(report)
        for warning in report.warnings:
            self.warned.setdefault(warning, []).append(client.name)

    def out(self) -> dict[int, SentOrder]:
        """Return the orders that have not been answered, by node."""
        return dict(self._waiting)

    def silent(self) -> set[int]:
        """Return the clients, by row, that were asked and have not answered yet."""
        return {sent.client.row for sent in self._waiting.values()}

    def is_complete(self) -> bool:
        """Whether nobody need be waited for.

        It has as many replies as are wanted, late ones among them; or, where that is
        not said, all that it asked have answered, and it has enough.
        """
        if self._wanted:
            return self.has_enough() or not self._waiting
        all_in = all(self._is_late(sent) for sent in self._waiting.values())
        return all_in and len(self.outcome.replies) >= self._needed

    def _is_late(self, sent: SentOrder) -> bool:
        """Whether an order is of an earlier round: this one need not wait for it."""
        return sent.server_round < self.server_round

    def has_enough(self) -> bool:
        """Whether nobody need be waited for, though more were asked."""
        return 0 < self._wanted <= len(self.outcome.replies)

    def is_short(self) -> bool:
        """Whether it has too few replies."""
        return self._needs_replies and len(self.outcome.replies) < self._needed

    def fault(self) -> str:
        """Return why it cannot be merged, "" if it can.

        It has too few replies, or some are far above the others, which nobody knew
        before.
        """
        if not self.is_short():
            return self.outcome.far_off()
        if self._no_clients:
            return self._no_clients
        replies, why = len(self.outcome.replies), self.rejected.values()
        return too_few(replies, self._needed, why)

    def finish(self) -> None:
        """Let the model move and the strategy learn, once; or drop what may not.

        Raises
        ------
        RunError
            If the strategy made NaN of a part of its model, or no vector as before.
        """
        if self._finished:
            return
        self._finished = True
        refused, accepted = len(self.refused), len(self.outcome.replies)
        if why := self.fault() or mostly_refused(refused, accepted):
            self.notes.append(f"round not merged: {why}")
            self.drop()
            return
        self._note_answers()
        awaited = Counter(
            part
            for sent in self._waiting.values()
            for part in sent.order.returned_parts()
        )
        self.notes += self.outcome.finish(self.server_round, awaited, self.private)

    def drop(self) -> None:
        """Drop everything that was merged so far; see :meth:`Outcome.drop`."""
        self._note_answers()
        self._dropped = True
        self.outcome.drop(enough=not self.is_short())

    def _note_answers(self) -> None:
        """Note who answered, and who did not in time."""
        silent = self.silent()
        replied = {reply.client for reply in self.outcome.replies}
        if self.private is not None:
            # Who rests decides what others hold: it must not hang on what was sent.
            replied = self.clients.keys() - silent
        if not self._merges_late:
            for sent in self._waiting.values():
                self.rejected.setdefault(sent.client.name, "no reply in time")
        # Who was still at work when we had enough, or may be late, did not fail.
        excused = silent if self._merges_late or self.has_enough() else set()
        for row in self.clients:
            if row in replied or row not in excused:
                self.answered[row] = self.answered.get(row, False) or row in replied
