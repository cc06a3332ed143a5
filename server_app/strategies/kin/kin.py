"""KIN (ours): groups before the first round, the dense model where there are none.

docs/methods.md, 7. Before the first round every client says once what its classes look
like (:class:`common.wire.ClassStatistic`), and a merge test makes groups of clients in
which a class means the same (``server_app.grouping``). Group g owns k experts
theta_g1..theta_gk; all groups begin with the same. Every round, with participants P::

    copies of the groups' experts j lie on the slots of bank j (e modulo k = j),
        the largest load on the slot that has served least
    c trains psi and its group's experts, logits sum_j theta_gj(psi(x)), and beside
        them its private gate of k numbers, which nothing else follows
    psi      <- psi + sum_P n_c delta psi_c / n
    theta_gj <- theta_gj + (1 - rho) mean_(c in g) delta_cj + rho mean_P delta_cj

Means are weighted by n_c. With one group, or rho = 1, this is FedAvg of one dense model
with k times as many hidden units. What differs from such a model: its k experts are
drawn one by one, so its last layer begins sqrt(k) times as large, and it has k biases
in the place of one, which together move k times as far. With k = 1 nothing differs.

A group that nobody is in yet follows the mean of all: so a new one begins there.

- *Unequal budgets.* Who can hold k_c < k experts trains k_c of its group's, those of
  the banks that have served least so far, and takes k / k_c times their sum for the
  whole: every bank is trained by as many clients, and each expert learns to be the k-th
  part of a sum. Who can hold more gets k.
- *Balance.* Loads are those of slots, not of what is in them: with one group all slots
  of a bank hold the same expert, a dense model's head in shards.
- *Groups.* At most E / k. Who says something new of its samples, or joins, is moved by
  that one message; the record of the round tells.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from common.moe import ModelSpec, Vector, expert_id
from common.moe.ensemble import GroupMixture
from common.parts import EXTRACTOR, expert_part
from common.settings import Settings
from common.wire import MOST_PROJECTIONS
from server_app.grouping import MergeTest, place
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)
from server_app.strategies.kin.membership import Membership

Ints = NDArray[np.int64]


class Kin(ExpertStrategy):
    """Experts of groups that are known before the first round.

    Attributes
    ----------
    members : Membership
        Who is in which group.
    loads : ndarray of int, shape (E,)
        Clients that each slot of a layer has served.
    owner : ndarray of int, shape (E,)
        Group whose expert is in each slot, -1 before the first round.
    seen : ndarray, shape (E // k,)
        Samples of each group's replies, over all rounds: its weight in what the server
        predicts.
    """

    name = "kin"
    ships = "extractor, the group's experts; once, class means of random projections"
    source = "groups by class means, partial pooling (ours)"
    use_when = (
        "devices see or mean different things (orientation, contrast, names of "
        "classes); class means leave the devices once"
    )
    cost = "messages, memory and training of fedavg; a few kilobytes once"
    remembers = ("loads", "owner", "seen")

    class Options(StrategyOptions):
        """What a group is, and what groups share."""

        rho: float = Field(
            0.5, ge=0, le=1, description="share of the mean of all in a group's update"
        )
        tau: float = Field(
            1.65, ge=1, le=1000, description="score up to which two groups are one"
        )
        projections: int = Field(
            48, ge=1, le=MOST_PROJECTIONS, description="random projections q of samples"
        )
        experts: int = Field(
            0, ge=0, description="experts k of a group; 0: the largest expert-capacity"
        )
        groups: int = Field(
            0,
            ge=0,
            description="most groups, up to num-experts / k; 0: so many",
        )

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        options: Any = self.parse_options(settings)
        k = options.experts or settings.rounds.expert_capacity.largest
        k = min(k, spec.num_experts)
        room = spec.num_experts // k
        super().__init__(settings, replace(spec, top_k=k, mixes="sum"))
        self.max_budget = self.k = k
        self.projections = options.projections
        self.members = Membership(
            MergeTest(most=min(options.groups or room, room), tau=options.tau),
            classes=spec.num_classes,
            projections=options.projections,
            noise=settings.data.statistic_noise,
        )
        self.loads = np.zeros(spec.num_experts, dtype=np.int64)
        self.owner = np.full(spec.num_experts, -1, dtype=np.int64)
        self.seen = np.zeros(room)
        # Groups whose experts clients were sent last: a late reply is of those.
        self._trains: dict[int, int] = {}
        # The expert of group g and bank j is at home in g k + j of every layer.
        first = {part: expert_part(e - n + n % k) for part, e, n in self._homes()}
        self.model |= {part: self.model[first[part]] for part in first}

    def _homes(self) -> Iterator[tuple[str, int, int]]:
        """Yield every expert's part, its global id, and its number in its layer."""
        for expert in range(self.spec.num_units):
            yield expert_part(expert), expert, expert % self.spec.num_experts

    def plan(self, view: View) -> Plan:
        """Give every participant the experts of its group, from evenly used slots."""
        notes = self.members.take_in(view.fleet)
        groups = self.members.groups[view.clients]
        self._trains |= zip(view.clients.tolist(), groups.tolist(), strict=True)
        budgets = np.minimum(view.budgets // self.spec.num_layers, self.k)
        held = np.zeros((len(groups), self.spec.num_experts), dtype=np.bool_)
        for bank, trains in enumerate(banks_of(budgets, self.k, self.loads)):
            slots = np.arange(bank, self.spec.num_experts, self.k)
            taken, owner = place(groups[trains], self.loads[slots], self.owner[slots])
            held[trains, slots[taken]] = True
            self.owner[slots] = owner
        held = np.tile(held, (1, self.spec.num_layers))
        content = {
            int(client): self._content(int(group), np.flatnonzero(row))
            for client, group, row in zip(view.clients, groups, held, strict=True)
            if row.any()
        }
        return Plan(assignment=held, content=content, notes=tuple(notes))

    def _content(self, group: int, slots: Ints) -> dict[str, Vector]:
        homes = {expert_part(slot): self._home(group, slot) for slot in slots.tolist()}
        parts = {part: self.model[home] for part, home in homes.items()}
        return {EXTRACTOR: self.model[EXTRACTOR], **parts}

    def _home(self, group: int, slot: int) -> str:
        """Return the part of the model that a slot holds for a group."""
        inside = slot % self.spec.num_experts
        return expert_part(slot - inside + group * self.k + inside % self.k)

    def merge(self, reply: Reply) -> None:
        """Add a client's changes to the sums of its group and of all, by n_c."""
        group = self._trains[reply.client]
        n = reply.report.num_examples
        for part, delta in reply.deltas.items():
            if (slot := expert_id(part)) is None:
                self.sums.add(part, delta, n)
            else:
                self.sums.add(self._home(group, slot), delta, n)
                self.sums.add(_of_all(self._home(0, slot)), delta, n)

    def finish(self) -> None:
        """Move psi by the mean of all, a group's experts by its own and that of all."""
        sizes = {part: vector.size for part, vector in self.model.items()}
        mean = {part: np.zeros(size, np.float32) for part, size in sizes.items()}
        mean |= {_of_all(part): mean[part] for part in sizes}
        self.sums.apply(mean)
        keeps = np.float32(1 - self.options.rho)
        inhabited = set(self.members.groups.tolist())
        model = {EXTRACTOR: self.model[EXTRACTOR] + mean[EXTRACTOR]}
        for part, expert, number in self._homes():
            change = mean[_of_all(self._home(0, expert))]
            if number // self.k in inhabited:
                change = change + keeps * (mean[part] - change)
            model[part] = self.model[part] + change
        self.model = model

    def learn(self, replies: Sequence[Reply]) -> None:
        """Count whom slots have served, and the samples of each group."""
        for reply in replies:
            first = reply.experts[reply.experts < self.spec.num_experts]
            self.loads[first] += 1
            group = self._trains[reply.client]
            self.seen[group] += reply.report.num_examples

    def serves(self, client: int) -> int:
        """Return which of the server's models a client, by row, would be handed."""
        groups = self.members.groups
        return int(groups[client]) if client < len(groups) else 0

    def served_model(self, which: int) -> nn.Module:
        """Return the model of a group: inputs (B, ...) to probabilities (B, C)."""
        return self._predictor([which])

    def global_model(self) -> nn.Module:
        """Return the mean of the groups' predictions, by the samples they have seen."""
        return self._predictor(range(self.members.count))

    def _predictor(self, groups: Sequence[int]) -> GroupMixture:
        homes = [
            expert for _, expert, number in self._homes() if number // self.k in groups
        ]
        model = self.spec.build(homes)
        parts = self.published()
        model.load({k: v for k, v in parts.items() if k in model.parts()})
        return GroupMixture(model, self.seen[np.array(groups)])

    def state(self) -> dict[str, Any]:
        """Return everything the strategy remembers beside the model."""
        return {**super().state(), "members": self.members.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        self.members.load_state(state["members"])


def banks_of(budgets: Ints, banks: int, loads: Ints) -> NDArray[np.bool_]:
    """Return who trains an expert of each bank, shape (k, P).

    Who can hold fewer than k experts takes those of the banks that have served least,
    what is planned in this round included; of several the first.

    Parameters
    ----------
    budgets : ndarray of int, shape (P,)
        Experts that each participant holds, up to k.
    banks : int
        k.
    loads : ndarray of int, shape (E,)
        Clients that each slot has served.
    """
    served = np.array([loads[bank::banks].sum() for bank in range(banks)])
    trains = np.zeros((banks, len(budgets)), dtype=np.bool_)
    # Who trains all of them decides nothing.
    trains[:, budgets >= banks] = True
    served += (budgets >= banks).sum()
    for position in np.flatnonzero(budgets < banks):
        chosen = np.argsort(served, kind="stable")[: budgets[position]]
        trains[chosen, position] = True
        served[chosen] += 1
    return trains


def _of_all(part: str) -> str:
    """Return under which name the changes of all groups' experts of a bank add up."""
    return f"all.{part}"
