"""Who is out there: one row per client, found by asking, kept for the whole run.

Flower's node ids are random per run and change when a device restarts, so a client is
known by the name it states in its ``query`` reply. Where devices authenticate, that has
to be the name its key is registered under. Rows of all matrices follow this registry:
sorted by partition and name at first, later arrivals appended. What is remembered of
each is in ``server_app.client``.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import wire
from common.code_hash import code_hash
from common.config import Settings
from common.seeding import stream
from common.shape import checkpoint_hash
from common.wire import QueryReply, TrainReport, WireError
from server_app.client import Client
from server_app.device_budget import DeviceBudget, Link
from server_app.mailbox import Mailbox

logger = logging.getLogger("flwr.expertfleet")

QUERY_SECONDS = 120.0


def first_line(message: Message) -> str:
    """Return what an error reply says, without its traceback."""
    lines = (message.error.reason or "").strip().splitlines() or ["no reason given"]
    return f"error {message.error.code}: {lines[0]}"


class Fleet:
    """The registry of clients.

    Parameters
    ----------
    settings : Settings
    budget : DeviceBudget
        How many experts a device may hold.

    Attributes
    ----------
    clients : list of Client
        By row.
    refused : dict of str to str
        Clients that may not take part, with the reason.
    """

    def __init__(self, settings: Settings, budget: DeviceBudget) -> None:
        self._settings = settings
        self._budget = budget
        self._known_nodes: set[int] = set()
        self._asked_at = 0.0
        self.clients: list[Client] = []
        self.refused: dict[str, str] = {}

    def __len__(self) -> int:
        """Return the number of clients known so far."""
        return len(self.clients)

    def budget(self, client: Client) -> int:
        """Return k_c of a client as it last described itself."""
        return self._budget(client.tier, client.profile, client.link)

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the clients."""
        profiles = [client.profile for client in self.clients]
        return {
            "partition_hash": sorted({p.partition_hash for p in profiles}),
            "clients": {
                client.name: {
                    "budget": self.budget(client),
                    **client.profile.model_dump(),
                }
                for client in self.clients
            },
            "refused": dict(self.refused),
        }

    def refresh(
        self, grid: Grid, mailbox: Mailbox, server_round: int, timeout: float
    ) -> list[Client]:
        """Ask new nodes who they are; return the clients to plan a round with.

        A client that failed rests for a while; one that failed ``set-aside-after``
        times has to answer a query before it is trusted with a round again.

        Parameters
        ----------
        mailbox : Mailbox
        timeout : float
            Seconds to wait for answers.
        """
        registered = {node.node_id: node.name for node in grid.get_nodes()}
        online = registered.keys()
        limit = self._settings.rounds.set_aside_after
        here = [
            client
            for client in self.clients
            if client.node_id in online and server_round >= client.rests_until
        ]
        # One too small to train may have had other things in its memory.
        probed = {
            client.node_id
            for client in here
            if client.failures >= limit or not self.budget(client)
        }
        asked = sorted((online - self._known_nodes) | probed)
        answered: set[int] = set()
        if asked:

            def query(node: int) -> Message:
                return Message(
                    RecordDict(), node, "query", ttl=timeout, group_id="query"
                )

            self._asked_at = time.monotonic()
            queries = [query(node) for node in asked]
            most = min(timeout, QUERY_SECONDS)
            replies = mailbox.exchange(grid, queries, most, query)
            answered = self._register(replies, registered)
        for client in here:
            if client.node_id in probed - answered:
                client.note(server_round, answered=False)
        reachable = [
            client
            for client in self.clients
            if client.node_id in online and self._fits(client)
        ]
        rested = [c for c in reachable if server_round >= c.rests_until]
        # Rest must not starve a round: better a doubtful client than too few.
        needed = self._settings.rounds.min_replies
        return rested if len(rested) >= needed else reachable

    def update(self, client: Client, report: TrainReport) -> None:
        """Take over what a device says about its capacity and its cache."""
        client.holds = report.holds
        client.profile = client.profile.model_copy(
            update={
                "memory_bytes": report.memory_bytes,
                "memory_available": report.memory_available,
                "expert_cap": report.expert_cap,
                "num_examples": report.num_examples,
            }
        )

    def _register(
        self, replies: Iterable[Message], registered: Mapping[int, str]
    ) -> set[int]:
        """Take in query replies; return the nodes that answered.

        Parameters
        ----------
        registered : mapping of int to str
            The name of every node's key; "" without authentication.
        """
        found: list[tuple[QueryReply, int, float]] = []
        answered: set[int] = set()
        for message in replies:
            node = message.metadata.src_node_id
            if message.has_error():
                self._refuse(f"node {node}", first_line(message))
                continue
            try:
                profile = wire.decode_query_reply(message.content)
            except WireError as error:
                self._refuse(f"node {node}", str(error))
                continue
            name = registered.get(node) or profile.client
            if name != profile.client:
                # Asked again every round: once corrected, it comes as the same node.
                self._refuse(
                    name,
                    f"it calls itself {profile.client!r} (name in its node "
                    f"configuration), but its key is registered as {name!r}",
                )
                continue
            answered.add(node)
            if profile.code_hash != code_hash():
                self._refuse(
                    profile.client,
                    f"runs other code ({profile.code_hash}, the server has "
                    f"{code_hash()}); is an older SuperLink still running?",
                )
                continue
            if profile.checkpoint != checkpoint_hash(self._settings):
                self._refuse(
                    profile.client,
                    "its pretrained checkpoint has another configuration or tokeniser "
                    "than the server's",
                )
                continue
            found.append((profile, node, time.monotonic() - self._asked_at))
        self._known_nodes |= answered
        self._admit(sorted(found, key=lambda f: (f[0].partition_id, f[0].client)))
        return answered

    def _fits(self, client: Client) -> bool:
        """Whether it has the memory for one expert; the others are told why not."""
        if self.budget(client):
            return True
        has = (client.profile.memory_available or 0) / 2**20
        self._refuse(
            client.name,
            f"its {has:.0f} MiB of memory are too few to train one expert",
        )
        return False

    def _admit(self, found: Sequence[tuple[QueryReply, int, float]]) -> None:
        by_name = {client.name: client for client in self.clients}
        first = not self.clients
        joined: list[Client] = []
        for profile, node, elapsed in found:
            self.refused.pop(profile.client, None)
            if known := by_name.get(profile.client):
                known.node_id, known.profile = node, profile
                known.link.observe(elapsed, profile.seconds_total, 0)
                continue
            client = Client(
                row=len(self.clients),
                name=profile.client,
                node_id=node,
                profile=profile,
                tier=1,
            )
            client.link.observe(elapsed, profile.seconds_total, 0)
            by_name[client.name] = client
            self.clients.append(client)
            joined.append(client)
        self._set_tiers(joined, first)
        for client in joined:
            # Virtual clients have nothing to say of themselves, and may be thousands.
            if client.profile.memory_available is not None:
                self._introduce(client)

    def _introduce(self, client: Client) -> None:
        profile = client.profile
        logger.info(
            "%s joins: %d experts (tier %d, limits: %s), %d MiB of memory, %g cores%s",
            client.name,
            self.budget(client),
            client.tier,
            self._budget.limits(profile, client.link),
            profile.memory_bytes >> 20,
            profile.cores,
            f", {profile.board}" if profile.board else "",
        )

    def _refuse(self, name: str, reason: str) -> None:
        if self.refused.get(name) != reason:
            logger.warning("%s is refused: %s", name, reason)
        self.refused[name] = reason

    def _set_tiers(self, joined: list[Client], first: bool) -> None:
        """Draw tiers exactly for the first fleet, by chance for later clients."""
        tiers = self._settings.rounds.expert_capacity
        seed = self._settings.run.seed
        if first:
            drawn = tiers.budgets(len(joined), stream(seed, "capacity")).tolist()
        else:
            experts, shares = zip(*tiers.tiers, strict=True)
            drawn = [
                stream(seed, "capacity", client.name).choice(experts, p=shares)
                for client in joined
            ]
        for client, tier in zip(joined, drawn, strict=True):
            client.tier = int(tier)

    def state(self) -> list[dict[str, Any]]:
        """Return what a checkpoint keeps of every client, by row."""
        return [
            {**asdict(client), "profile": client.profile.model_dump()}
            for client in self.clients
        ]

    def load_state(self, clients: Sequence[Mapping[str, Any]]) -> None:
        """Restore the registry; addresses are found out by asking again."""
        self.clients = [
            Client(
                **{
                    **fields,
                    "profile": QueryReply(**fields["profile"]),
                    "link": Link(**fields.get("link", {})),
                }
            )
            for fields in clients
        ]
        for client in self.clients:
            client.node_id = -1
        self._known_nodes.clear()
