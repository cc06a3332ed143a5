"""Which nodes are admitted as clients: what their answers to a query lead to.

A node is refused where it says itself that it cannot take part, for what it says of
itself (``server_app.fleet.objections``), what its owner does not allow
(``server_app.fleet.owners``), data that do not go with the others'
(``server_app.fleet.same_data``, ``server_app.fleet.fleet_scale``), a name or share that
is another node's, and for too little memory. When it is asked again is up to
``server_app.fleet.nodes``; what is told of who joins, to ``server_app.fleet.joining``.
"""

from collections.abc import Iterable, Sequence

from common import refusals, wire
from common.settings import Settings
from common.wire import QueryReply, WireError
from server_app.fleet import same_data
from server_app.fleet.agreement import Agreement
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.client import Client
from server_app.fleet.joining import Joining
from server_app.fleet.nodes import Nodes
from server_app.fleet.objections import double, objection
from server_app.fleet.owners import Owners
from server_app.fleet.roster import Roster
from server_app.fleet.stated_statistic import impossible_statistic
from server_app.transport.mailbox import Letter

Answer = tuple[QueryReply, Letter]


class Admission:
    """Admits the nodes that are connected, or refuses them with a reason.

    Parameters
    ----------
    settings : Settings
    budget : DeviceBudget
        How many experts a device may hold.
    nodes : Nodes
    roster : Roster
    agreement : Agreement
    joining : Joining
        Tells of those that are admitted.
    """

    def __init__(
        self,
        settings: Settings,
        budget: DeviceBudget,
        nodes: Nodes,
        roster: Roster,
        agreement: Agreement,
        joining: Joining,
    ) -> None:
        self._settings = settings
        self._device_budget = budget
        self._nodes = nodes
        self._roster = roster
        self._agreement = agreement
        self._owners = Owners.of(settings.run)
        self._joining = joining
        # Whose data do not go with the others', by node.
        self._apart: dict[int, QueryReply] = {}
        self._judged: tuple[set[int], object] = set(), None
        # What each client's budget follows from, and the budget, by name.
        self._budgets: dict[str, tuple[QueryReply, int, float, int]] = {}

    def profile(self, client: Client) -> QueryReply:
        """Return what a client last said about itself, within what its owner allows."""
        return self._owners.allowed(client.profile)

    def budget(self, client: Client) -> int:
        """Return k_c of a client as it last described itself."""
        profile, tier, speed = client.profile, client.tier, client.link.speed
        known = self._budgets.get(client.name)
        # A fleet is looked through several times a round, and few have changed.
        if known and known[0] is profile and known[1:3] == (tier, speed):
            return known[3]
        allowed = self._device_budget(tier, self.profile(client), client.link)
        found = int(min(allowed, self._owners.most(profile)))
        self._budgets[client.name] = profile, tier, speed, found
        return found

    def holds_everything(self, client: Client) -> bool:
        """Whether a client can hold all experts at once."""
        profile = self.profile(client)
        asks = client.profile.expert_cap  # it may want less than its owner allows
        if asks and not self._device_budget.holds_everything(client.profile):
            return False
        return self._device_budget.holds_everything(profile)

    def present(self) -> list[Client]:
        """Return the clients that are connected, by row."""
        return [each for each in self._roster.clients if each.node_id in self._nodes]

    def apply_owners_list(self, server_round: int) -> None:
        """Refuse who is no longer allowed; ask those anew who may be allowed now."""
        if self._owners.refresh():
            self._budgets.clear()
            for node in self._nodes.refused_nodes():
                self._nodes.want(node)
        for client in self.present():
            if reason := self._owners.refusal(client.profile):
                self._refuse(client.node_id, server_round, reason, client.name)

    def take_in(self, letters: Iterable[Letter], server_round: int) -> None:
        """Take in the answers to queries."""
        found: list[Answer] = []
        for letter in letters:
            node = letter.query.metadata.dst_node_id
            self._apart.pop(node, None)
            registered = self._nodes[node].registered
            try:
                if letter.reply.has_error():
                    raise WireError(wire.error_of(letter.reply))
                refusal = wire.decode_refusal(letter.reply.content)
                if refusal is not None:
                    label = registered or refusal.client
                    self._refuse(node, server_round, refusal.reason, label)
                    continue
                profile = wire.decode_query_reply(
                    letter.reply.content, self._agreement.largest_answer
                )
            except WireError as error:
                self.miss(node, server_round, str(error))
                continue
            task = self._agreement.task
            reason = objection(profile, registered, self._settings, task)
            asked = self._agreement.projections
            reason = reason or impossible_statistic(profile, task, asked)
            if reason := reason or self._owners.refusal(profile):
                self._refuse(node, server_round, reason, registered or profile.client)
            else:
                found.append((profile, letter))
        found.sort(key=lambda f: (f[0].partition_id, f[0].client))
        self._admit(self._of_the_same_data(found, server_round), server_round)

    def miss(self, node: int, server_round: int, reason: str) -> None:
        """Note that a node did not give an answer that can be used."""
        if (client := self._roster.at(node)) is not None:
            limit = self._settings.rounds.set_aside_after
            if client.is_doubtful(limit) and not client.rests(server_round):
                client.note_answer(server_round, answered=False)
        self._refuse(node, server_round, reason)

    def settle(self, clients: Sequence[Client]) -> None:
        """Fix the scale of the run by what its first clients have; say what is odd."""
        early = self._agreement.projections and self._agreement.task.needs_moments
        self._joining.note(self._agreement.settle([each.profile for each in clients]))
        for client in clients:
            if early:  # without a scale it could say nothing of its samples
                client.ask_again()
            self._joining.warn(client)

    def check_memory(self, client: Client, server_round: int) -> None:
        """Admit a client if it has the memory for one expert, else refuse it."""
        if self.budget(client):
            self._nodes.admit(client.node_id, client.name)
            return
        reason = refusals.of_memory(self.profile(client).memory_available or 0)
        self._nodes.refuse(client.node_id, server_round, reason, label=client.name)

    def _refuse(
        self, node: int, server_round: int, reason: str, label: str = ""
    ) -> None:
        self._roster.vacate(node)
        self._nodes.refuse(node, server_round, reason, label=label)

    def _of_the_same_data(self, found: list[Answer], server_round: int) -> list[Answer]:
        """Return those whose data go with the server's and with each other's."""
        said = {lt.query.metadata.dst_node_id: profile for profile, lt in found}
        # Also who is in is judged, and who is kept out has a say: the first to come
        # may be the one that is wrong.
        here = {client.node_id: client.profile for client in self.present()}
        apart = {n: p for n, p in self._apart.items() if n in self._nodes}
        judged = {**here, **apart, **said}
        before, self._judged = self._judged, ({*judged}, self._agreement.fleet_range)
        if not said and self._judged == before:  # nobody came, went or spoke
            return []
        known = [client.profile for client in self._roster.clients]
        # By what Flower knows: what a device says of itself must not end a run.
        if all(self._nodes[node].virtual for node in said):
            same_data.check_simulation([*said.values()], known, self._settings)
        refused = same_data.refusals(judged, known, self._settings)
        others = {n: p for n, p in judged.items() if n not in refused}
        refused |= self._agreement.misfits(others)
        for node in refused.keys() - apart.keys():
            self._refuse(node, server_round, refused[node], judged[node].client)
        for node in apart.keys() - refused.keys():
            self._nodes.want(node)
        self._apart = {node: judged[node] for node in refused.keys() | apart.keys()}
        return [
            each
            for node, each in zip(said, found, strict=True)
            if node not in self._apart
        ]

    def _admit(self, found: Sequence[Answer], server_round: int) -> None:
        known, came = len(self._roster.clients), []
        for profile, letter in found:
            node = letter.query.metadata.dst_node_id
            rival = self._roster.rival(profile, node, self._nodes.__contains__)
            if rival is not None:
                self._refuse_double(profile, node, rival, server_round)
                continue
            client = self._roster.called(profile.client)
            before = None if client is None else client.profile
            self._joining.note(same_data.note(before, profile, self._settings))
            came.append(self._roster.place(profile, node, letter.seconds))
        joined = self._roster.clients[known:]
        self._roster.grant_tiers(joined)
        for client in came:
            self.check_memory(client, server_round)
            self._joining.warn(client)
        self._joining.tell([(client, self.profile(client)) for client in joined])

    def _refuse_double(
        self, profile: QueryReply, node: int, rival: Client, server_round: int
    ) -> None:
        """Refuse a second node of a client, unless the first proves to be gone."""
        self._roster.vacate(node)
        self._nodes.refuse(
            node,
            server_round,
            double(profile, rival.name, rival.node_id),
            label=f"{profile.client} (node {node})",
            rival=rival.node_id,
        )
        if self._nodes[rival.node_id].answered < self._nodes[node].asked:
            self._nodes.want(rival.node_id)
