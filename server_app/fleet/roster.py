"""The clients of a run by row, and who of them is at which node.

Rows are never given anew once a round is planned: all matrices follow them. A name, and
a share of the data, is one node's at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.seeding import stream
from common.settings import Settings
from common.wire import QueryReply
from server_app.fleet.client import NOWHERE, Client, restored, states
from server_app.fleet.objections import Share, share


class Roster:
    """Every client that ever took part.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    clients : list of Client
        By row.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.clients: list[Client] = []
        self._at: dict[int, Client] = {}
        self._by_name: dict[str, Client] = {}
        self._holders: dict[Share | None, Client] = {}

    def at(self, node: int) -> Client | None:
        """Return which client is at a node."""
        return self._at.get(node)

    def called(self, name: str) -> Client | None:
        """Return the client of a name."""
        return self._by_name.get(name)

    def vacate(self, node: int) -> None:
        """Forget that a client is at a node."""
        if (client := self._at.pop(node, None)) is not None:
            client.leave()

    def rival(
        self, profile: QueryReply, node: int, is_here: Callable[[int], bool]
    ) -> Client | None:
        """Return who is here from another node under this name or with this share.

        Parameters
        ----------
        is_here : callable
            Whether a node is connected.
        """
        for client in (self.called(profile.client), self._holder(profile)):
            if client and client.node_id != node and is_here(client.node_id):
                return client
        return None

    def place(self, profile: QueryReply, node: int, elapsed: float) -> Client:
        """Note that a client is at a node; one that is new gets the next row.

        Whoever had its name or its share is away, and would come back as the second.
        """
        client = self.called(profile.client)
        if client is None:
            client = Client(
                row=len(self.clients),
                name=profile.client,
                node_id=node,
                profile=profile,
            )
            self.clients.append(client)
        for before in (client, self._holder(profile)):
            if before is not None:
                self.vacate(before.node_id)
        self.vacate(node)
        client.introduce(node, profile, elapsed)
        self._index(client)
        return client

    def arrange(self) -> None:
        """Give all their rows by share and name, and their tiers.

        The order in which they were found does not matter then. Only before the first
        round is planned.
        """
        self.clients.sort(key=lambda each: (each.profile.partition_id, each.name))
        for row, client in enumerate(self.clients):
            client.move(row)
        self.grant_tiers(self.clients)

    def grant_tiers(self, joined: Sequence[Client]) -> None:
        """Draw tiers exactly for the first fleet, by chance for later clients."""
        if not joined:
            return
        tiers = self._settings.rounds.expert_capacity
        seed = self._settings.run.seed
        if len(joined) == len(self.clients):
            drawn = tiers.budgets(len(joined), stream(seed, "capacity")).tolist()
        else:
            experts, shares = zip(*tiers.tiers, strict=True)
            drawn = [
                stream(seed, "capacity", client.name).choice(experts, p=shares)
                for client in joined
            ]
        for client, tier in zip(joined, drawn, strict=True):
            client.grant(int(tier))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the clients."""
        return states(self.clients)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the clients; where they are has to be found out."""
        self._at, self._by_name, self._holders = {}, {}, {}
        self.clients = restored(state)
        for client in self.clients:
            self._index(client)

    def _holder(self, profile: QueryReply) -> Client | None:
        """Return whose share of the data this is, as far as is known."""
        client = self._holders.get(share(profile))
        same = client is not None and share(client.profile) == share(profile)
        return client if same else None

    def _index(self, client: Client) -> None:
        self._by_name[client.name] = client
        if client.node_id != NOWHERE:
            self._at[client.node_id] = client
        if (its := share(client.profile)) is not None:
            self._holders[its] = client
