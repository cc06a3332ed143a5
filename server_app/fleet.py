"""Who is out there: one row per client, found by asking, kept for the whole run.

Flower's node ids are random per run and change when a device restarts, so a client is
known by the name it states in its ``query`` reply. Rows of all matrices follow this
registry: sorted by partition and name at first, later arrivals appended.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import wire
from common.code_hash import code_hash
from common.config import Settings
from common.seeding import stream
from common.wire import QueryReply, WireError
from server_app.capacity import budgets

logger = logging.getLogger("flwr.expertfleet")

Exchange = Callable[[Grid, list[Message], float], Iterator[Message]]


@dataclass(kw_only=True)
class Client:
    """One device.

    Attributes
    ----------
    row : int
        Its row in matrices over clients.
    name : str
    node_id : int
        Its current address; changes when the device restarts.
    profile : QueryReply
        What it last said about itself.
    budget : int
        k_c, experts it may hold.
    """

    row: int
    name: str
    node_id: int
    profile: QueryReply
    budget: int


class Fleet:
    """The registry of clients.

    Parameters
    ----------
    settings : Settings
    num_experts : int
        Experts in the mixture; no budget exceeds it.

    Attributes
    ----------
    clients : list of Client
        By row.
    refused : dict of str to str
        Clients that may not take part, with the reason.
    """

    def __init__(self, settings: Settings, num_experts: int) -> None:
        self._settings = settings
        self._num_experts = num_experts
        self._known_nodes: set[int] = set()
        self.clients: list[Client] = []
        self.refused: dict[str, str] = {}

    def __len__(self) -> int:
        """Return the number of clients known so far."""
        return len(self.clients)

    def refresh(self, grid: Grid, exchange: Exchange, timeout: float) -> list[Client]:
        """Ask nodes that are new who they are; return the clients reachable now.

        Parameters
        ----------
        exchange : callable
            Sends messages and yields replies as they land.
        timeout : float
            Seconds to wait for answers.
        """
        online = set(grid.get_node_ids())
        new = sorted(online - self._known_nodes)
        if new:
            queries = [
                Message(RecordDict(), node, "query", ttl=timeout, group_id="query")
                for node in new
            ]
            self._register(exchange(grid, queries, timeout))
        return [client for client in self.clients if client.node_id in online]

    def _register(self, replies: Iterable[Message]) -> None:
        found: list[tuple[QueryReply, int]] = []
        for message in replies:
            node = message.metadata.src_node_id
            if message.has_error():
                logger.warning("node %d did not answer: %s", node, message.error.reason)
                continue
            self._known_nodes.add(node)
            try:
                profile = wire.decode_query_reply(message.content)
            except WireError as error:
                self._refuse(f"node {node}", str(error))
                continue
            if profile.code_hash != code_hash():
                self._refuse(
                    profile.client,
                    f"runs other code ({profile.code_hash}, the server has "
                    f"{code_hash()}); is an older SuperLink still running?",
                )
                continue
            found.append((profile, node))
        by_name = {client.name: client for client in self.clients}
        first = not self.clients
        joined: list[Client] = []
        for profile, node in sorted(
            found, key=lambda item: (item[0].partition_id, item[0].client)
        ):
            if known := by_name.get(profile.client):
                known.node_id, known.profile = node, profile
                continue
            client = Client(
                row=len(self.clients),
                name=profile.client,
                node_id=node,
                profile=profile,
                budget=0,
            )
            by_name[client.name] = client
            self.clients.append(client)
            joined.append(client)
        self._set_budgets(joined, first)

    def _refuse(self, name: str, reason: str) -> None:
        self.refused[name] = reason
        logger.warning("%s is refused: %s", name, reason)

    def _set_budgets(self, joined: list[Client], first: bool) -> None:
        """Draw tiers exactly for the first fleet, by chance for later clients."""
        tiers = self._settings.rounds.expert_capacity
        seed = self._settings.run.seed
        if first:
            drawn = tiers.budgets(len(joined), stream(seed, "capacity"))
        else:
            shares = [share for _, share in tiers.tiers]
            drawn = np.array(
                [
                    tiers.tiers[
                        stream(seed, "capacity", client.name).choice(
                            len(shares), p=np.array(shares) / sum(shares)
                        )
                    ][0]
                    for client in joined
                ],
                dtype=np.int64,
            )
        caps = [client.profile.expert_cap for client in joined]
        allowed = budgets(drawn, caps, self._num_experts).tolist()
        for client, budget in zip(joined, allowed, strict=True):
            client.budget = budget
