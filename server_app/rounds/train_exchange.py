"""The exchange in which clients train: who takes part, what they are sent, who answers.

One exchange a round, and each reply is merged as it lands. What comes of the round
after that is in ``loop``, and who measures its model in ``measure_exchange``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from server_app.contract import Algorithm, Plan
from server_app.fleet.client import Client
from server_app.fleet.fleet import Fleet
from server_app.rounds.orders import orders_of
from server_app.rounds.planning import Planner
from server_app.rounds.round import Round
from server_app.rounds.selection import Selection
from server_app.run_error import RunError
from server_app.transport.mailbox import Mailbox

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
    ) -> None:
        self.planner = Planner(strategy, fleet)
        self._strategy = strategy
        self._rounds = strategy.settings.rounds
        self._fleet = fleet
        self._mailbox = mailbox
        self._tell = tell
        self._selection = Selection(strategy, fleet, mailbox)
        self._begun = False
        self._repeats = REPEATS if self._rounds.short_round == "repeat" else 0

    def exchange(
        self, server_round: int, grid: Grid, timeout: float, **common: Any
    ) -> Round:
        """Carry out one round, again if it was too short and policy says so.

        Parameters
        ----------
        server_round : int
        grid : Grid
        timeout : float
            Seconds that replies are waited for.
        **common
            Fields of every order, see :func:`server_app.rounds.orders.orders_of`.
        """
        attempt, earlier = 0, None
        while True:
            current, messages = self.open(
                server_round, grid, attempt, earlier, **common
            )
            self._merge_replies(current, messages, grid, timeout)
            if not current.is_short() or attempt == self._repeats:
                return current
            attempt, earlier = attempt + 1, current
            current.dropped.append(f"attempt {attempt} dropped: {current.shortage()}")
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
        if len(ready) < needed:
            return self._without_anybody(server_round, ready, attempt, earlier), []
        self._begun = True
        clients, wanted = self._selection.sample(server_round, ready)
        view, plan = self.planner.plan(server_round, clients)
        agreement = self._fleet.agreement
        current = Round(
            self._strategy,
            server_round,
            plan,
            wanted=wanted,
            one_test_set=agreement.one_test_set(c.profile for c in clients),
            notes=self._fleet.take_notes(),
            earlier=earlier,
        )
        orders = orders_of(
            self._strategy,
            view,
            plan,
            clients,
            agreement.told,
            attempt=attempt,
            **common,
        )
        return current, [current.ask(order) for order in orders]

    def _without_anybody(
        self,
        server_round: int,
        ready: list[Client],
        attempt: int,
        earlier: Round | None,
    ) -> Round:
        """Return the short round of too few clients; raise RunError if none may be."""
        found = self._fleet.account(ready)
        if not self._begun or not (ready or attempt < self._repeats):
            raise RunError(
                f"no client can take part: {found}"
                if not ready
                else f"too few clients, min-replies = {self._rounds.min_replies}: "
                f"{found}"
            )
        nobody = np.zeros((0, self._strategy.spec.num_units), dtype=np.bool_)
        plan = Plan(assignment=nobody)
        return Round(
            self._strategy, server_round, plan, shortage=found, earlier=earlier
        )

    def _merge_replies(
        self, current: Round, messages: list[Message], grid: Grid, timeout: float
    ) -> None:
        """Send messages and merge each reply as it lands, until there are enough."""
        replies = self._mailbox.exchange(grid, messages, timeout, current.resend_lost)
        for reply in replies:
            if (again := current.resend_missing(reply)) is not None:
                messages.append(again)
                continue
            current.accept(reply)
            if current.has_enough():
                break
        replies.close()
