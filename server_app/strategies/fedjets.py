"""FedJETs (arXiv 2306.08586) and its one-expert form Anchor-MoE; docs/methods.md, 4.

Every expert has an anchor client, bound to it for the whole run; the gate looks at
features of a frozen common expert and is shared; every round::

    anchors hold their own expert;  ordinary clients the gate's top-K over their data
    clients train psi, their experts and the gate;  an anchor also teaches the gate
        that its data belongs to its expert
    psi, theta_e, gate <- means over the clients that trained them

The paper starts from a pretrained common expert and picks anchors of distinct label
distributions. Neither exists in a federation that starts from nothing and keeps labels
private. Our choices:

- The first ``warmup-rounds`` train one dense model with FedAvg; its extractor becomes
  the common expert, its values those of every expert. Too few of them and the gate
  sends everybody to the same expert.
- The common expert travels with every order: clients keep nothing between rounds.
- Anchors are drawn by the seed. They take part in every round, so fewer than
  ``clients-per-round`` ordinary clients do.
- An ordinary client ranks the experts with the gate as it trained it the last time it
  took part (``gate_mass`` of its report), which costs no extra exchange; before that it
  gets a random set.
- With several mixture layers an expert and its anchor are one of every layer, and K is
  the gate's choice in each; the common expert is the encoder without its mixtures.
- Means are weighted as ``expert-weighting`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from common.errors import SettingsError
from common.moe import COMMON, EXTRACTOR, ModelSpec, expert_part
from common.moe.ensemble import GatedMixture
from common.seeding import stream
from common.settings import Settings
from common.wire import WireError
from server_app.assignment.policies import greedy_top_k
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)

NOBODY = -1


class FedJETs(ExpertStrategy):
    """Anchored experts, a shared gate over a frozen common expert.

    Attributes
    ----------
    anchors : ndarray of int, shape (E,)
        Row of every expert's anchor client; -1 while there are too few clients.
    gate_mass : ndarray, shape (C, E)
        Last reported mean gate probability at each client; NaN until reported.
    warmup : int
        Rounds that train the common expert.
    """

    name = "fedjets"
    ships = "extractor, assigned experts, gate, common expert"
    private = "data only; the gate is shared"
    source = "FedJETs, arXiv 2306.08586"
    use_when = (
        "the gate shall be shared, and some clients, the anchors, can be there in "
        "every round"
    )
    cost = "the experts held, the gate and a common expert down"
    gate = "shared"
    remembers: ClassVar[tuple[str, ...]] = ("anchors", "gate_mass", "warmup")

    class Options(StrategyOptions):
        """FedJETs' own settings."""

        experts_per_client: int = Field(
            2, ge=1, description="K of an ordinary client, at most its budget"
        )
        warmup_rounds: int = Field(
            0,
            ge=0,
            description="first rounds, for the common expert; 0: a fifth of all",
        )
        anchor_weight: float = Field(
            1.0, ge=0, description="weight of the gate loss of anchors"
        )

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options.

        Raises
        ------
        SettingsError
            If an option is wrong, or the anchors leave no room for ordinary clients.
        """
        asked, experts = settings.rounds.clients_per_round, settings.model.num_experts
        if 0 < asked <= experts:
            raise SettingsError(
                f"clients-per-round = {asked} is not allowed with strategy "
                f"{cls.name!r}: the {experts} anchors (num-experts) take part in every "
                f"round; choose 0 for all clients, or more than {experts}, "
                f"e.g. {2 * experts} for as many ordinary clients"
            )
        return super().parse_options(settings)

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, replace(spec, common_gate=True))
        self.anchors = np.full(self.spec.num_experts, NOBODY, dtype=np.int64)
        self.gate_mass = np.empty((0, self.spec.num_units))
        # Fixed here and remembered: a longer resumed run must not warm up again.
        self.warmup = self.options.warmup_rounds or ceil(settings.rounds.num_rounds / 5)
        self._warming = False
        self._spread_common()

    # --- who takes part and who holds what --------------------------------------------

    def sample(
        self, online: NDArray[np.int64], wanted: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Take every anchor and fill up with ordinary clients by chance."""
        self.anchors = bound(self.anchors, online, self.settings.run.seed)
        is_anchor = np.isin(online, self.anchors)
        ordinary = super().sample(
            online[~is_anchor], max(0, wanted - int(is_anchor.sum())), rng
        )
        return np.sort(np.concatenate([online[is_anchor], ordinary]))

    def plan(self, view: View) -> Plan:
        """Give anchors their own expert, ordinary clients the gate's top-K."""
        self.anchors = bound(self.anchors, view.clients, self.settings.run.seed)
        missing = np.flatnonzero(self.anchors == NOBODY).tolist()
        notes = (f"experts without an anchor: {missing}",) if missing else ()
        self._warming = view.server_round <= self.warmup
        if self._warming:
            return self._warmup(view, notes)
        most = self.options.experts_per_client * view.layers.num_layers
        budgets = np.minimum(view.budgets, most)
        assignment = greedy_top_k(self._ranking(view), budgets, view.layers)
        own = np.tile(self.anchors == view.clients[:, None], self.spec.num_layers)
        is_anchor = own.any(axis=1)
        assignment[is_anchor] = own[is_anchor]
        return Plan(
            assignment=assignment,
            order={"common_gate": True, "report_gate": True},
            client_order={
                row: {"gate_supervision": self.options.anchor_weight}
                for row in view.clients[is_anchor].tolist()
            },
            notes=notes,
        )

    def _ranking(self, view: View) -> NDArray[np.float64]:
        """Return what the gate says about the participants' data, shape (P, E)."""
        joined = view.num_clients - len(self.gate_mass)
        unknown = np.full((joined, self.spec.num_units), np.nan)
        self.gate_mass = np.concatenate([self.gate_mass, unknown])
        mass = self.gate_mass[view.clients]
        return np.where(np.isnan(mass), view.rng.random(mass.shape), mass)

    # --- the common expert ------------------------------------------------------------

    def _warmup(self, view: View, notes: tuple[str, ...]) -> Plan:
        """Train one dense model everywhere: FedAvg.

        All experts are equal, so which one a client files its work under only shows in
        the loads; taking turns keeps them even.
        """
        experts = np.arange(self.spec.num_experts)
        turns = np.arange(len(view.clients)) % len(experts)
        assignment = np.tile(turns[:, None] == experts, self.spec.num_layers)
        content = {}
        for row, held in zip(view.clients.tolist(), assignment, strict=True):
            parts = (EXTRACTOR, *map(expert_part, np.flatnonzero(held).tolist()))
            content[row] = {part: self.model[part] for part in parts}
        return Plan(
            assignment=assignment,
            order={"gate": "none"},
            content=content,
            notes=(*notes, "warm-up: a dense model, which becomes the common expert"),
        )

    def merge(self, reply: Reply) -> None:
        """Average per part; in the warm-up all experts are one.

        Raises
        ------
        WireError
            If it trained the common expert, and the warm-up is over.
        """
        if not self._warming:
            if reply.order.gate == "none":
                raise WireError("trained the common expert, whose warm-up is over")
            super().merge(reply)
            return
        for part, delta in reply.deltas.items():
            dense = self.spec.first_of_layer(part)
            self.sums.add(dense, delta, self.weight(reply, part))

    def finish(self) -> None:
        """Apply the means; in the warm-up, renew the common expert."""
        super().finish()
        if self._warming:
            self._spread_common()

    def _spread_common(self) -> None:
        self.model[COMMON] = self.model[EXTRACTOR]
        for part in map(expert_part, range(self.spec.num_units)):
            self.model[part] = self.model[self.spec.first_of_layer(part)]

    # --- what is remembered and what predicts -----------------------------------------

    def learn(self, replies: Sequence[Reply]) -> None:
        """Remember the gate's mass at each client."""
        for reply in replies:
            if reply.report.gate_mass:
                self.gate_mass[reply.client] = reply.report.gate_mass

    def global_model(self) -> nn.Module:
        """Return the mixture of all experts, gated by the shared gate."""
        return GatedMixture(self.full_model())


class AnchorMoE(FedJETs):
    """FedJETs where an ordinary client takes one expert, too."""

    name = "anchor-moe"
    source = "Anchor-MoE, FedJETs' one-expert form in Fed-MoE, IJCAI 2025"
    use_when = "a baseline: fedjets with one expert a client"
    cost = "one expert, the gate and a common expert down"

    class Options(FedJETs.Options):
        """FedJETs' settings with K = 1."""

        experts_per_client: int = Field(1, ge=1, le=1, description="K is 1")


def bound(
    anchors: NDArray[np.int64], clients: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Bind every expert that has no anchor to a client that is none.

    Parameters
    ----------
    anchors : ndarray of int, shape (E,)
        Row of every expert's anchor, -1 where there is none; bindings are kept.
    clients : ndarray of int
        Rows to draw from.
    seed : int
        Of the run.

    Returns
    -------
    ndarray of int, shape (E,)
        With -1 left only if there are fewer clients than experts.
    """
    experts = np.flatnonzero(anchors == NOBODY)
    free = clients[~np.isin(clients, anchors)]
    if not len(experts) or not len(free):
        return anchors
    rng = stream(seed, "anchors", len(anchors) - len(experts))
    drawn = rng.permutation(free)[: len(experts)]
    renewed = anchors.copy()
    renewed[experts[: len(drawn)]] = drawn
    return renewed
