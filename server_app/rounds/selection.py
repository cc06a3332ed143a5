"""Who takes part in a round: waiting until enough clients are there, and sampling."""

import logging
import time
from math import ceil

import numpy as np
from flwr.serverapp import Grid

from common.seeding import stream
from server_app.contract import Algorithm
from server_app.fleet.client import Client
from server_app.fleet.fleet import Fleet
from server_app.merging.buffers import share_of
from server_app.run_error import RunError
from server_app.transport.mailbox import Mailbox

logger = logging.getLogger("flwr.expertfleet")

WAIT_SECONDS = 1.0
"""Between two looks at who is there, while clients are missing."""

SAY_SECONDS = 60.0
"""How often it is said again who is missing."""


class Selection:
    """Selects the participants of every round.

    Parameters
    ----------
    strategy : Algorithm
        Whose ``sample`` chooses where not all are asked.
    fleet : Fleet
    mailbox : Mailbox
        Carries the queries to nodes that are new.
    """

    def __init__(self, strategy: Algorithm, fleet: Fleet, mailbox: Mailbox) -> None:
        self._strategy = strategy
        self._settings = strategy.settings
        self._fleet = fleet
        self._mailbox = mailbox
        self._warned = False

    def wait(self, server_round: int, grid: Grid, needed: int) -> list[Client]:
        """Return the clients that can be asked: ``needed``, or fewer once time is up.

        Before the first round, what holds for the whole run is fixed here. Who is there
        and who is missing is said at once, at every change and every ``SAY_SECONDS``.

        Raises
        ------
        RunError
            If there will never be as many.
        """
        seconds = self._settings.rounds.patience
        deadline = time.monotonic() + seconds
        told, say_again = "", 0.0
        while True:
            ready = self._fleet.refresh(grid, self._mailbox, server_round, seconds)
            if len(ready) >= needed:
                self._warn_of_drop_out(len(ready), needed)
                return self._fleet.begin(ready)
            if reason := self._fleet.never(needed):
                raise RunError(f"{reason}; {self._fleet.account(ready)}")
            now = time.monotonic()
            if now > deadline:
                return ready
            text = self._fleet.account(ready)
            if text != told or now > say_again:
                told, say_again = text, now + SAY_SECONDS
                logger.info("waiting for %d clients: %s", needed, text)
            time.sleep(WAIT_SECONDS)

    def sample(
        self, server_round: int, ready: list[Client], at_work: int = 0
    ) -> tuple[list[Client], int]:
        """Return the participants and how many replies are enough, 0 for all.

        Parameters
        ----------
        server_round : int
        ready : list of Client
            Those who can be asked.
        at_work : int
            How many others still have an order of before.

        Raises
        ------
        RunError
            If the strategy chooses others than those it may.
        """
        chosen, wanted = self._chosen(server_round, ready, at_work)
        if self._settings.rounds.is_buffered:
            share = self._settings.rounds.buffer_share
            wanted = share_of(share, len(chosen) + at_work)
        return chosen, wanted

    def _chosen(
        self, server_round: int, ready: list[Client], at_work: int
    ) -> tuple[list[Client], int]:
        rounds = self._settings.rounds
        able = len(ready) + at_work
        if not rounds.clients_per_round or rounds.clients_per_round >= able:
            return ready, 0
        most = self._most_asked()
        wanted = rounds.clients_per_round if most > rounds.clients_per_round else 0
        # Late replies count as well: nobody is asked in the place of who is at work.
        least = 0 if rounds.is_buffered else rounds.clients_per_round
        asked = max(least, most - at_work)
        if asked >= len(ready):
            return ready, wanted
        rng = stream(self._settings.run.seed, "sample", server_round)
        rows = np.array([client.row for client in ready], dtype=np.int64)
        chosen = np.asarray(self._strategy.sample(rows, asked, rng))
        if chosen.dtype.kind not in "iu" or not np.isin(chosen, rows).all():
            raise RunError(
                f"round {server_round}: strategy {self._strategy.name!r} samples "
                f"{chosen.tolist()!r:.60}: expected some of {rows.tolist()!r:.60}"
            )
        taken = {*chosen.tolist()}
        return [client for client in ready if client.row in taken], wanted

    def _most_asked(self) -> int:
        rounds = self._settings.rounds
        return ceil((1 + rounds.over_selection) * rounds.clients_per_round)

    def _warn_of_drop_out(self, ready: int, needed: int) -> None:
        """Say once that drop-out leaves too few replies, if it does on average."""
        drop_out = self._settings.stress.drop_out
        asked = min(ready, self._most_asked() or ready)
        replies = (1 - drop_out) * asked
        if replies < needed and not self._warned:
            self._warned = True
            logger.warning(
                "drop-out = %g leaves %.3g replies of %d clients on average: a round "
                "needs min-replies = %d, and few or none will have them",
                drop_out,
                replies,
                asked,
                needed,
            )
