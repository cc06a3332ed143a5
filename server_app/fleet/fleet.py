"""Who is out there and can take part: one row per client, found by asking.

Flower's node ids are random per run and change when a device restarts, so a client is
known by the name it states in its ``query`` reply. Where devices authenticate, that has
to be the name its key is registered under. Of two nodes with one name, or one share of
the data, the second is refused while the first answers. Rows are sorted by partition
and name when the first round begins, later arrivals appended
(``server_app.fleet.roster``). What is remembered of each is in
``server_app.fleet.client``; how nodes are asked, and when again, in
``server_app.fleet.nodes``; what their answers lead to, in
``server_app.fleet.admission``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid

from common.inputs import inputs_of
from common.settings import Settings
from common.wire import QueryReply
from server_app.fleet.admission import Admission
from server_app.fleet.agreement import Agreement
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.client import Client
from server_app.fleet.joining import Joining
from server_app.fleet.nodes import QUERY_SECONDS, READING_SECONDS, Nodes
from server_app.fleet.reasons import grouped, named
from server_app.fleet.roster import Roster
from server_app.transport.mailbox import Mailbox

_NUMBERS = {
    *(f"moments_{part}" for part in ("count", "mean", "m2", "least", "most")),
    *(f"statistic_{part}" for part in ("means", "counts", "covariance")),
}
"""What is of use to the server alone, and long."""


class Fleet:
    """The clients of a run, those that can take part above all.

    Parameters
    ----------
    settings : Settings
    budget : DeviceBudget
        How many experts a device may hold.
    projections : int
        Of their samples, of which clients are asked for class means; 0 for none.
    base : str
        Version of the frozen base of the model; "" for none.

    Attributes
    ----------
    agreement : Agreement
        The task, as clients are told it.
    nodes : Nodes
        Those that are connected.
    """

    def __init__(
        self,
        settings: Settings,
        budget: DeviceBudget,
        projections: int = 0,
        base: str = "",
    ) -> None:
        self._settings = settings
        self.agreement = Agreement(settings, projections, base)
        self._budget = budget
        self._roster = Roster(settings)
        self._joining = Joining(budget, self.agreement)
        self._begun = False
        self._forget_nodes()

    def _forget_nodes(self) -> None:
        self.nodes = Nodes(self.agreement.query)
        self._admission = Admission(
            self._settings,
            self._budget,
            self.nodes,
            self._roster,
            self.agreement,
            self._joining,
        )

    def __len__(self) -> int:
        """Return the number of clients known so far."""
        return len(self.clients)

    def names(self) -> list[str]:
        """Return the names of all clients known so far, by row."""
        return [client.name for client in self.clients]

    @property
    def clients(self) -> list[Client]:
        """All clients known so far, by row."""
        return self._roster.clients

    def budget(self, client: Client) -> int:
        """Return k_c of a client as it last described itself."""
        return self._admission.budget(client)

    def profile(self, client: Client) -> QueryReply:
        """Return what a client last said about itself, within what its owner allows."""
        return self._admission.profile(client)

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the clients."""
        profiles = [client.profile for client in self.clients]
        return {
            "task": self.agreement.facts(),
            "inputs": inputs_of(self.agreement.task),
            "partition_hash": sorted({p.partition_hash for p in profiles}),
            "clients": {
                client.name: {
                    "budget": self.budget(client),
                    **self.profile(client).model_dump(exclude=_NUMBERS),
                }
                for client in self.clients
            },
            "refused": dict(self.refused),
        }

    def outline(self) -> dict[str, Any]:
        """Return of :meth:`facts` what says whether they are to be written again."""
        return {
            "clients": {each.name: each.profile.num_examples for each in self.clients},
            "refused": self.refused,
            "task": self.agreement.facts(),
        }

    def refresh(
        self, grid: Grid, mailbox: Mailbox, server_round: int, timeout: float
    ) -> list[Client]:
        """Ask nodes who they are; return the clients to plan a round with.

        A client that failed rests for a while; one that failed ``set-aside-after``
        times has to answer a query before it is trusted with a round again. Answers
        are waited for where too few clients are ready without them, and while the
        scale is to be worked out of all that are there.

        Parameters
        ----------
        mailbox : Mailbox
        timeout : float
            Seconds to wait for answers, where there are ``min-replies`` without them.
        """
        self.nodes.look(grid.get_nodes())
        self._admission.apply_owners_list(server_round)
        rounds = self._settings.rounds
        wanted = max(rounds.min_replies, rounds.clients_per_round)
        patient = self.agreement.task.needs_moments
        patient = patient or len(self._ready(server_round)) < wanted
        for client in self._admission.present():
            if client.outdated or not (
                client.rests(server_round) or self._is_trusted(client)
            ):
                self.nodes.want(client.node_id)
        longest = READING_SECONDS if self.agreement.of_own_data else QUERY_SECONDS
        seconds = min(timeout, longest)
        # Whoever says to be a client that is elsewhere has that one asked, and is asked
        # again if it is gone.
        for _ in range(3):
            letters = self.nodes.gather(
                grid, mailbox, server_round, patient=patient, seconds=seconds
            )
            self._admission.take_in(letters, server_round)
            # A device that has just started answers when it can. While too few can take
            # part there is no round that it keeps waiting.
            while self._too_few() and (
                letters := self.nodes.gather(
                    grid,
                    mailbox,
                    server_round,
                    patient=patient,
                    seconds=longest,
                    first=True,
                )
            ):
                self._admission.take_in(letters, server_round)
            for node in self.nodes.silent(longest if self._too_few() else seconds):
                self._admission.miss(node, server_round, "does not answer")
            for client in self._admission.present():
                # Its report may have said that it has less memory than it had.
                if not self.budget(client) and not self.nodes[client.node_id].refusal:
                    self._admission.check_memory(client, server_round)
            if not self._begun:
                # Flower registers the nodes of a simulation while the server starts,
                # and all before the first can answer.
                self.nodes.look(grid.get_nodes())
            if not self.nodes.anybody_due(server_round):
                break
        self.nodes.tell()
        ready = self._ready(server_round)
        # Rest must not starve a round: better a doubtful client than too few.
        return ready if len(ready) >= rounds.min_replies else self._able()

    def able(self) -> list[Client]:
        """Return all clients known that can hold an expert, there or not, by row."""
        return [client for client in self.clients if self.budget(client)]

    def resting(self, server_round: int) -> dict[str, int]:
        """Return who is left alone in a round, with the first that asks it again."""
        return {c.name: c.rests_until for c in self.clients if c.rests(server_round)}

    def to_measure(self, server_round: int) -> tuple[list[Client], list[Client]]:
        """Return the clients of a round, and those of them that can hold every expert.

        All experts at once, whatever the tier is that training goes by.
        """
        ready = self._ready(server_round)
        whole = [each for each in ready if self._admission.holds_everything(each)]
        return ready, whole

    def begin(self, ready: list[Client]) -> list[Client]:
        """Fix what holds for the whole run before its first round; return them by row.

        That is the order of the clients, and the scale of their samples; in a run that
        goes on, both are what they were.
        """
        if not self._begun:
            self._begun = True
            self._roster.arrange()
            ready = sorted(ready, key=lambda client: client.row)
            self._admission.settle(ready)
        return ready

    @property
    def refused(self) -> dict[str, str]:
        """Who is connected and may not take part, with the reason."""
        return self.nodes.refused

    def never(self, needed: int) -> str:
        """Return why there will never be as many clients; "" if there may be.

        The data are cut into as many shares as there can be clients, unless devices
        have data of their own; by the word of two at least, since one may be wrong
        about it. A simulation has the nodes that it began with.
        """
        shares = [client.profile.num_partitions for client in self._admission.present()]
        if len(shares) > 1 and 1 < min(shares) == max(shares) < needed:
            return (
                f"min-replies = {needed} is more than the clients there can be: the "
                f"data are cut into {max(shares)} shares"
            )
        if len(self.nodes) and self.nodes.is_closed:
            return (
                f"min-replies = {needed} is more than the clients of this simulation, "
                f"which has {len(self.nodes)} nodes"
            )
        return ""

    def account(self, ready: Sequence[Client]) -> str:
        """Return in one line who is there, who is not, and why."""
        parts = [
            f"{len(ready)} can take part"
            + (f" ({named([client.name for client in ready])})" if ready else "")
        ]
        refused, here = (
            self.refused,
            {client.name for client in self._admission.present()},
        )
        away = [c.name for c in self.clients if c.name not in here | refused.keys()]
        if away:
            parts.append(f"not connected: {named(away)}")
        parts += [f"refused: {line}" for line in grouped(refused)]
        if not len(self.nodes):
            parts.append("none is connected")
        return "; ".join(parts)

    def take_notes(self) -> list[str]:
        """Return, once, what the record of the next round shall say of the clients."""
        notes, self._joining.notes = self._joining.notes, []
        return notes

    def _too_few(self) -> bool:
        return len(self._able()) < self._settings.rounds.min_replies

    def _able(self) -> list[Client]:
        return [each for each in self._admission.present() if self.budget(each)]

    def _ready(self, server_round: int) -> list[Client]:
        return [
            client
            for client in self._admission.present()
            if not client.rests(server_round)
            and self._is_trusted(client)
            and self.budget(client)
        ]

    def _is_trusted(self, client: Client) -> bool:
        return not client.is_doubtful(self._settings.rounds.set_aside_after)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the clients."""
        return self._roster.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the clients; addresses are found out by asking again."""
        self._roster.load_state(state)
        self._begun = True
        self._forget_nodes()
