"""The exchange in which clients train: who takes part, what they are sent, who answers.

One exchange a round, and each reply is merged as it lands. Where late replies are
merged, orders outlive their round: whoever has one is not asked again before it answers
or the order is given up. What comes of the round after that is in ``loop``, and who
measures its model in ``measure_exchange``.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from common.chunks import LARGEST, in_words
from server_app.contract import Algorithm, Plan
from server_app.fleet.client import NOWHERE, Client
from server_app.fleet.fleet import Fleet
from server_app.fleet.links import cut_for_slowest, time_for
from server_app.rounds.orders import SentOrder, orders_of
from server_app.rounds.planning import Planner
from server_app.rounds.private_round import Privacy
from server_app.rounds.replay import Arrivals
from server_app.rounds.round import Round
from server_app.rounds.selection import Selection
from server_app.run_error import RunError
from server_app.transport.mailbox import Mailbox, Pending

logger = logging.getLogger("flwr.expertfleet")

REPEATS = 3
"""How often a short round is tried again before it is skipped after all."""


class Training:
    """Carries the plans of one strategy to the clients and their replies back.

    Parameters
    ----------
    strategy : Algorithm
    fleet : Fleet
    mailbox : Mailbox
    tell : callable
        Called when it is known who is there, before anything is planned.
    privacy : Privacy or None
        In a run with differential privacy.

    Attributes
    ----------
    planner : Planner
        Remembers who was last assigned what.
    """

    def __init__(
        self,
        strategy: Algorithm,
        fleet: Fleet,
        mailbox: Mailbox,
        tell: Callable[[], None],
        privacy: Privacy | None = None,
        watch: Callable[[int, int, int], None] = lambda *_: None,
    ) -> None:
        self._privacy = privacy
        self._watch = watch
        self.planner = Planner(strategy, fleet)
        self._strategy = strategy
        self._rounds = strategy.settings.rounds
        self._fleet = fleet
        self._mailbox = mailbox
        self._tell = tell
        self._selection = Selection(strategy, fleet, mailbox)
        folder = strategy.settings.run.replay_arrivals
        self._replayed = Arrivals(Path(folder)) if folder else None
        self._out: Pending = {}
        self._last: Round | None = None
        self._begun = False
        self._size = LARGEST
        self._slow: set[str] = set()
        repeat = self._rounds.short_round == "repeat" and not self._replayed
        self._repeats = REPEATS if repeat else 0

    def exchange(
        self, server_round: int, grid: Grid, timeout: float, **common: Any
    ) -> Round:
        """Carry out one round, again if it was too short and policy says so.

        Parameters
        ----------
        server_round : int
        grid : Grid
        timeout : float
            Seconds that replies are waited for, unless links say how many.
        **common
            Fields of every order, see :func:`server_app.rounds.orders.orders_of`.
        """
        attempt, earlier = 0, None
        while True:
            current, messages = self.open(
                server_round, grid, attempt, earlier, **common
            )
            self._merge_replies(current, messages, grid, current.deadline or timeout)
            if not (fault := current.fault()) or attempt == self._repeats:
                return current
            attempt, earlier = attempt + 1, current
            if self._rounds.merges_late and current.is_short():
                current.dropped.append(f"waited on: {fault}")  # what has come counts
            else:
                current.dropped.append(f"attempt {attempt} dropped: {fault}")
                current.drop()

    def open(
        self,
        server_round: int,
        grid: Grid,
        attempt: int = 0,
        earlier: Round | None = None,
        **common: Any,
    ) -> tuple[Round, list[Message]]:
        """Plan a round, or try it again; return it and a message to each participant.

        Where fewer than ``min-replies`` clients are there after ``round-deadline``,
        nobody is asked: the round is short.

        Parameters
        ----------
        server_round : int
        grid : Grid
        attempt : int
        earlier : Round or None
            The attempt before this one.
        **common
            See :meth:`exchange`.

        Raises
        ------
        RunError
            If it is the first round, or if nobody at all was there and no attempt is
            left.
        """
        needed = self._rounds.min_replies
        ready = self._selection.wait(server_round, grid, needed)
        self._tell()
        out, given_up = self._still_out(server_round)
        kept: dict[str, Any] = {"earlier": earlier, "out": out, "given_up": given_up}
        if len(ready) < needed:
            nobody = self._without_anybody(server_round, ready, attempt, kept)
            return self._remembered(nobody), []
        self._begun = True
        busy = {sent.client.row: sent.order.experts for sent in out.values()}
        if self._rounds.merges_late and earlier is not None:
            merged = earlier.outcome.replies
            busy |= {reply.client: reply.order.experts for reply in merged}
        idle = [client for client in ready if client.row not in busy]
        drawn = self._privacy is not None and self._privacy.rate > 0
        if drawn:  # planned for all, and then drawn: the plan says nothing of who is
            clients, wanted = self._fleet.able(), 0
        elif self._replayed:
            names = self._replayed.asked(server_round)
            clients, wanted = [c for c in idle if c.name in names], 0
        else:
            clients, wanted = self._selection.sample(server_round, idle, len(out))
        view, plan = self.planner.plan(server_round, clients, [*busy.values()])
        agreement = self._fleet.agreement
        self._cut_for(clients)
        orders = orders_of(
            self._strategy,
            view,
            plan,
            clients,
            agreement.told,
            attempt=attempt,
            **common,
        )
        seconds, slow = time_for(
            [(each.client, *each.nbytes()) for each in orders],
            self._rounds.round_deadline,
        )
        orders = [replace(each, ttl=seconds) for each in orders]
        private = None if self._privacy is None else self._privacy.open(orders)
        current = Round(
            self._strategy,
            server_round,
            plan,
            wanted=wanted,
            one_test_set=agreement.one_test_set(c.profile for c in clients),
            notes=[*self._fleet.take_notes(), *slow.values()],
            private=private,
            **kept,
        )
        if orders and not self._rounds.round_deadline:
            current.deadline = seconds
        self._warn_of_slow(slow)
        if self._privacy is not None and drawn:
            here = {client.row for client in ready}
            orders = [
                order
                for order in orders
                if self._privacy.is_drawn() and order.client.row in here
            ]
        if self._rounds.merges_late:
            lifetime = self._rounds.lifetime
            orders = [replace(each, ttl=lifetime * each.ttl) for each in orders]
        if self._replayed:
            planned = {sent.client.name: sent.order.experts for sent in orders}
            self._replayed.check_plan(server_round, planned)
        messages = [current.ask(order) for order in orders]
        return self._remembered(current), messages

    def _remembered(self, current: Round) -> Round:
        """Return a round, after noting whose orders may outlive it."""
        if self._rounds.merges_late:
            self._last = current
        return current

    def at_work(self) -> list[str]:
        """Return the names of those whose orders are still out."""
        out = self._last.out() if self._last else {}
        return sorted(sent.client.name for sent in out.values())

    def give_up(self) -> None:
        """Wait for nothing any more that is still out."""
        self._last = None
        self._mailbox.abandon(self._out)
        self._out = {}

    def _still_out(
        self, server_round: int
    ) -> tuple[dict[int, SentOrder], list[tuple[SentOrder, str]]]:
        """Return orders of before that may still be answered, and those given up."""
        out, given_up = {}, []
        for node, sent in (self._last.out() if self._last else {}).items():
            rounds = server_round - sent.server_round
            if rounds > self._rounds.max_staleness:
                given_up.append((sent, f"no reply in {rounds} rounds"))
            elif sent.client.node_id not in (node, NOWHERE):
                given_up.append((sent, "started anew before it replied"))
            else:  # an order of before is not sent again, and its parts may go
                out[node] = replace(sent, arrays={}) if rounds else sent
        lost = {
            message_id: message
            for message_id, message in self._out.items()
            if message.metadata.dst_node_id not in out
        }
        self._mailbox.abandon(lost)
        self._out = {k: m for k, m in self._out.items() if k not in lost}
        return out, given_up

    def _cut_for(self, clients: list[Client]) -> None:
        size, slowest = cut_for_slowest(clients)
        if size != self._size:
            self._size = size
            why = f", for the link of {slowest}" if slowest else ""
            logger.info("orders go in %s%s", in_words(size), why)

    def _warn_of_slow(self, slow: dict[str, str]) -> None:
        """Say once of each client that its link is too slow."""
        for client in sorted(slow.keys() - self._slow):
            self._slow.add(client)
            logger.warning("%s", slow[client])

    def _without_anybody(
        self,
        server_round: int,
        ready: list[Client],
        attempt: int,
        kept: Mapping[str, Any],
    ) -> Round:
        """Return the short round of too few clients; raise RunError if none may be."""
        found, needed = self._fleet.account(ready), self._rounds.min_replies
        if not self._begun or not (ready or attempt < self._repeats):
            raise RunError(
                f"too few clients, min-replies = {needed}: {found}"
                if ready
                else f"no client can take part: {found}"
            )
        nobody = np.zeros((0, self._strategy.spec.num_units), dtype=np.bool_)
        plan = Plan(assignment=nobody)
        why = f"fewer than {needed} clients were there: {found}"
        return Round(self._strategy, server_round, plan, no_clients=why, **kept)

    def _merge_replies(
        self, current: Round, messages: list[Message], grid: Grid, timeout: float
    ) -> None:
        """Send messages and merge each reply as it lands, until there are enough.

        A run that is replayed has enough when it has the replies that are in its log.
        """
        late = self._rounds.merges_late
        nodes: set[int] | None = None
        if self._replayed:
            names = self._replayed.merged(current.server_round)
            nodes = {n for n, s in current.out().items() if s.client.name in names}
            timeout = self._rounds.lifetime * self._rounds.patience
        replies = self._mailbox.exchange(
            grid,
            messages,
            timeout,
            current.resend_lost,
            self._out if late else None,
            lambda node: nodes is None or node in nodes,
            lambda: late and nodes is None and current.is_complete(),
        )
        asked, answers = len(messages), 0
        self._watch(current.server_round, 0, asked)
        for reply in replies:
            if (again := current.resend_missing(reply)) is not None:
                messages.append(again)
                continue
            current.accept(reply)
            answers += 1
            self._watch(current.server_round, answers, asked)
            if not late and nodes is None and current.is_complete():
                break
        replies.close()
        if self._replayed:
            rows = {reply.client for reply in current.outcome.replies}
            found = {self._fleet.clients[row].name for row in rows}
            self._replayed.check_replies(current.server_round, found)
