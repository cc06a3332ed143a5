"""The nodes that are connected, and the queries that ask them who they are.

Nodes are asked in the background: an answer is taken in when it comes, and nobody need
wait for it. One that fails, is refused or says nothing is asked again, more and more
rarely; one that was activated anew, and so may have been mended, at once. Which answer
admits a node is decided in ``server_app.fleet.admission``.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.flower_internals import NodeInfo
from server_app.fleet.client import rest
from server_app.fleet.reasons import grouped, named
from server_app.transport.mailbox import Letter, Mailbox, pause
from server_app.transport.pings import is_virtual

logger = logging.getLogger("flwr.expertfleet")

QUERY_SECONDS = 120.0
"""How long an answer is waited for, where somebody waits for it."""

EXPIRY_SECONDS = 600.0
"""How long after a query an answer still counts."""

SIMULATED_SECONDS = 3600.0
"""The same of a virtual node, whose turn may come late and whose answer does come."""

READING_SECONDS = EXPIRY_SECONDS
"""How long an answer is waited for where a device first reads all of its own data."""

SAY_SECONDS = 60.0
"""How often it is said whose answer is waited for."""

RETRY_SECONDS = 10.0
"""After how long a node that was refused is asked again in the same round."""

LOOK_SECONDS = 1.0
"""Between two looks at who is connected, while answers are waited for."""


@dataclass(kw_only=True, slots=True)
class NodeState:
    """What is known of one node.

    Attributes
    ----------
    registered : str
        The name of its key; "" without authentication.
    label : str
        What it is called where it is told of.
    activated : str
        When the SuperLink last saw it come.
    virtual : bool
        Whether it is a node of a simulation.
    query : Message or None
        The query to it that is out.
    asked, answered : float
        When it was last sent one and last answered one, on the monotonic clock.
    refusal : str
        Why it may not take part; empty if it may, or has not been asked.
    rival : int or None
        The node that is, by its own word, the same client.
    failures : int
        Queries in a row after which it was not admitted.
    due_round, due_time : float
        It is asked from this round on, or from this time on, whichever is first.
    """

    registered: str
    label: str
    activated: str
    virtual: bool
    query: Message | None = None
    asked: float = -inf
    answered: float = -inf
    refusal: str = ""
    rival: int | None = None
    failures: int = 0
    due_round: float = 0
    due_time: float = 0.0

    @property
    def expiry(self) -> float:
        """How many seconds after a query its answer still counts."""
        return SIMULATED_SECONDS if self.virtual else EXPIRY_SECONDS

    def is_due(self, server_round: int) -> bool:
        """Whether it is to be asked now."""
        due = server_round >= self.due_round or time.monotonic() >= self.due_time
        return due and self.query is None

    def may_answer(self, seconds: float) -> bool:
        """Whether a query is out to it, and not for too long.

        Of a virtual node that is as long as the answer counts: which clients a round is
        planned with must not depend on how busy the machine is.
        """
        limit = self.expiry if self.virtual else seconds
        return self.query is not None and time.monotonic() < self.asked + limit


class Nodes:
    """The nodes that are connected, and the queries that are out to them.

    Parameters
    ----------
    content : Callable[[], RecordDict]
        Makes what a query says.
    """

    def __init__(self, content: Callable[[], RecordDict] = RecordDict) -> None:
        self._content = content
        self._nodes: dict[int, NodeState] = {}
        self._told: dict[str, str] = {}
        # Who was refused because of a node; some may be so no longer.
        self._rivals: dict[int, set[int]] = {}

    def __len__(self) -> int:
        """Return how many nodes are connected."""
        return len(self._nodes)

    def __contains__(self, node: int) -> bool:
        """Whether a node is connected."""
        return node in self._nodes

    def __getitem__(self, node: int) -> NodeState:
        """Return what is known of a node that is connected."""
        return self._nodes[node]

    @property
    def is_closed(self) -> bool:
        """Whether nobody else will come: a simulation, of which all have been asked."""
        return all(v.virtual and v.query is None for v in self._nodes.values())

    @property
    def refused(self) -> dict[str, str]:
        """Who of those connected may not take part, with the reason."""
        found: dict[str, str] = {}
        for node, state in self._nodes.items():
            if state.refusal:
                label = state.label
                label = f"{label} (node {node})" if label in found else label
                found[label] = state.refusal
        return found

    def refused_nodes(self) -> list[int]:
        """Return the nodes that may not take part."""
        return [node for node, each in self._nodes.items() if each.refusal]

    def look(self, connected: Iterable[NodeInfo]) -> None:
        """See who has come, gone or been activated anew."""
        known, self._nodes = self._nodes, {}
        for node in connected:
            state = known.get(node.node_id)
            came = node.name, node.last_activated_at
            if state is None or (state.registered, state.activated) != came:
                state = NodeState(
                    registered=node.name,
                    label=node.name or f"node {node.node_id}",
                    activated=node.last_activated_at,
                    virtual=is_virtual(node),
                )
            self._nodes[node.node_id] = state
        for gone in known.keys() - self._nodes.keys():
            self._rival_is_away(gone)

    def want(self, node: int) -> None:
        """Ask a node as soon as no query to it is out."""
        self._nodes[node].due_time = 0.0

    def ask(
        self, grid: Grid, mailbox: Mailbox, server_round: int, *, again: bool = True
    ) -> None:
        """Send a query to everybody who is due; ``again``: also after a failure."""
        due = {
            node: state
            for node, state in self._nodes.items()
            if state.is_due(server_round)
            and (again or not (state.failures or state.refusal))
        }
        for node, state in due.items():
            state.query = Message(
                self._content(), node, "query", ttl=state.expiry, group_id="query"
            )
            state.asked = time.monotonic()
            state.due_round = state.due_time = inf
        if due:
            mailbox.post(grid, [v.query for v in due.values() if v.query is not None])

    def anybody_due(self, server_round: int) -> bool:
        """Whether there is somebody to ask."""
        return any(each.is_due(server_round) for each in self._nodes.values())

    def gather(
        self,
        grid: Grid,
        mailbox: Mailbox,
        server_round: int,
        *,
        patient: bool,
        seconds: float,
        first: bool = False,
    ) -> list[Letter]:
        """Ask whoever is due, and return what has been answered since the last time.

        Parameters
        ----------
        patient : bool
            Whether to wait for the answers of those who never failed to give one. Those
            of virtual nodes are always waited for: the same seed gives the same rounds.
        seconds : float
            How long an answer of others is waited for, at most.
        first : bool
            Whether one answer is enough; then nobody who failed is asked again.
        """
        letters: list[tuple[NodeState, Letter]] = []
        started = looked = said = heard = time.monotonic()
        while True:
            self.ask(grid, mailbox, server_round, again=not first)
            for letter in mailbox.collect(grid):
                state = self._nodes.get(letter.query.metadata.dst_node_id)
                if state is not None and state.query is letter.query:
                    letters.append((state, letter))
                    state.query, heard = None, time.monotonic()
                    if not letter.reply.has_error():
                        state.answered = time.monotonic()
            now = time.monotonic()
            if now > started + seconds:
                patient = False
            awaited = [
                each.label
                for each in self._nodes.values()
                if each.may_answer(seconds)
                and (each.virtual or (patient and not each.failures))
            ]
            if not awaited or (first and letters):
                break
            if now > said + SAY_SECONDS:
                said = now
                logger.info("waiting for the answers of %s", named(awaited))
            time.sleep(pause(now - heard))
            if now > looked + LOOK_SECONDS:
                looked = now
                self.look(grid.get_nodes())
        # Of one who has gone or come anew since, an answer says nothing any more.
        return [
            letter
            for state, letter in letters
            if self._nodes.get(letter.query.metadata.dst_node_id) is state
        ]

    def silent(self, seconds: float) -> list[int]:
        """Return the nodes that have just been silent for too long."""
        return [
            node
            for node, state in self._nodes.items()
            if state.query is not None
            and not state.may_answer(seconds)
            and not state.refusal
        ]

    def admit(self, node: int, label: str) -> None:
        """Admit a node; it is asked no more before something changes."""
        state = self._nodes[node]
        state.label, state.refusal, state.rival = label, "", None
        state.failures = 0

    def refuse(
        self,
        node: int,
        server_round: int,
        reason: str,
        *,
        label: str = "",
        rival: int | None = None,
    ) -> None:
        """Refuse a node for now; it is asked again after a while."""
        state = self._nodes[node]
        state.label = label or state.label
        state.refusal, state.rival = reason, rival
        self._rival_is_away(node)
        if rival is not None:
            self._rivals.setdefault(rival, set()).add(node)
        if state.query is None:  # else it may yet answer
            pause = rest(state.failures + 1)
            state.failures += 1
            state.due_round = server_round + 1 + pause
            state.due_time = time.monotonic() + RETRY_SECONDS * (1 + pause)

    def _rival_is_away(self, node: int) -> None:
        for other in self._rivals.pop(node, ()):
            if other in self._nodes and self._nodes[other].rival == node:
                self.want(other)

    def tell(self) -> None:
        """Log who has been refused since the last time."""
        refused = self.refused
        # Many may be refused for one reason: it is told once.
        new = {n: why for n, why in refused.items() if self._told.get(n) != why}
        for line in grouped(new):
            logger.warning("refused: %s", line)
        self._told = refused
