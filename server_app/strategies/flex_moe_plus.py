"""FLEX-MoE+: FLEX-MoE with what it was found to lack; docs/methods.md, 1 and 5, ours.

Every round is FLEX-MoE's with these lines, each an option that can be turned off;
n(c,e) are the rounds in which client c trained expert e::

    V       <- Q + max n - n                              in the rounds that rotate
    V       <- Q + exploration sqrt(ln(1 + t) / (1 + n))  in the others (UCB1)
    A       <- argmax sum V(c,e) x(c,e) within FLEX-MoE's budgets and bounds
    clients train all their experts on all their samples  (soft)
    n(c,e)  <- n(c,e) + 1                                 for the pairs that trained

What each is for:

- *Rotation and bonus.* The fitness of a pair nobody tried never moves, so an expert
  keeps the same few clients and sees their classes only. For a share ``rotation`` of
  the rounds the least-tried pairs come first (fitness breaks ties); after that fitness
  decides, plus a bonus for what is little known (Auer et al. 2002). Balance and bytes
  are FLEX-MoE's.
- *soft*: no expert a client was sent is idle; its gate mixes them.
- *gate_epochs*: the server weights experts by usage, whatever the sample. Where it has
  samples of its own (``reserved-samples``) it can train a gate on them, off by default.

What clients keep and how they use their label frequencies are settings that compose
with every strategy (``client-keep``, ``label-prior``, ``loss-calibration``,
``server-average``). With them the dense model is as good as this one or better where
labels differ, and where devices differ rotation mixes what should stay apart:
docs/when-a-mixture-pays.md.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from common.errors import SettingsError
from common.moe import ModelSpec, pack, unpack_into
from common.moe.ensemble import ServerGated
from common.seeding import stream
from common.settings import Settings
from server_app.strategies.base import Reply, StrategyOptions, View
from server_app.strategies.flex_moe import FlexMoE
from server_app.strategies.server_gate import train_gate
from server_app.strategies.server_training import (
    Tensors,
    require_reserved,
    reserved_tensors,
)

_ALWAYS = 2**31 - 1
"""The last round that rotates where all do."""


class FlexMoEPlus(FlexMoE):
    """FLEX-MoE that rotates and lets no expert of a client idle.

    Attributes
    ----------
    tried : ndarray, shape (C, E)
        Rounds in which each client trained each expert.
    server_gate : ndarray of float32
        The server's own gate over features, empty without one.
    """

    name = "flex-moe-plus"
    source = "FLEX-MoE with rotation and soft routing (ours)"
    use_when = "as flex-moe, where experts would keep to the same few clients"
    cost = "messages and training of flex-moe; 1.01 times its memory"
    remembers: ClassVar[tuple[str, ...]] = (
        *FlexMoE.remembers,
        "tried",
        "server_gate",
        "rotates_until",
    )

    class Options(StrategyOptions):
        """What is added to FLEX-MoE; all 0 or false is FLEX-MoE."""

        rotation: float = Field(
            1.0, ge=0, le=1, description="share of the rounds that rotate, 0 to 1"
        )
        exploration: float = Field(
            0.3, ge=0, le=1000, description="weight of the bonus after that, 0 to 1000"
        )
        soft: bool = Field(
            True, description="whether a client trains all its experts on all samples"
        )
        gate_epochs: int = Field(
            0, ge=0, description="passes of the server's gate over reserved samples"
        )

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options; raises SettingsError if one is wrong or has no data."""
        options = super().parse_options(settings)
        if getattr(options, "gate_epochs", 0):
            require_reserved(
                settings, cls.name, "gate-epochs trains the server's gate on them"
            )
            if settings.model.takes_tokens:
                raise SettingsError(
                    "strategy-options of flex-moe-plus: gate-epochs is not allowed "
                    f"with backbone {settings.model.backbone!r}: the server's gate is "
                    "for experts that classify"
                )
        return options

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        options: Any = self.parse_options(settings)
        super().__init__(settings, replace(spec, top_k=0) if options.soft else spec)
        self.tried = np.zeros((0, self.spec.num_units))
        self.server_gate = np.empty(0, dtype=np.float32)
        self._round = 0  # planned last
        # Fixed here and remembered: a longer resumed run must not rotate again.
        rotation, rounds = self.options.rotation, settings.rounds.num_rounds
        self.rotates_until = int(rotation * rounds) if rotation < 1 else _ALWAYS

    def fitness_of(self, view: View) -> NDArray[np.float64]:
        """Return V, what the assignment maximises, shape (P, E)."""
        self._round = view.server_round
        fitness = super().fitness_of(view)
        joined = view.num_clients - len(self.tried)
        self.tried = np.pad(self.tried, ((0, max(0, joined)), (0, 0)))
        tried = self.tried[view.clients]
        if view.server_round <= self.rotates_until:
            # Never below 0: a pair that costs something would leave budgets unused.
            return fitness + (self.tried.max(initial=0) - tried)
        bonus = np.sqrt(np.log1p(view.server_round) / (1 + tried))
        return fitness + self.options.exploration * bonus

    def learn(self, replies: Sequence[Reply]) -> None:
        """Update Q and D, count who trained what, and train the server's gate."""
        super().learn(replies)
        for reply in replies:
            self.tried[reply.client, reply.experts] += 1
        if self.options.gate_epochs:
            self._train_gate()

    def _train_gate(self) -> None:
        mixture = self._gated()
        rng = stream(self.settings.run.seed, "server-gate", self._round)
        train_gate(
            mixture,
            self._reserved,
            training=self.settings.training,
            epochs=self.options.gate_epochs,
            rng=rng,
        )
        self.server_gate = pack(mixture.gate)

    def global_model(self) -> nn.Module | None:
        """Return the experts weighted by the server's gate, by usage without one."""
        return self._gated() if len(self.server_gate) else super().global_model()

    @cached_property
    def _reserved(self) -> Tensors:
        return reserved_tensors(self.settings)

    def _gated(self) -> ServerGated:
        mixture = ServerGated(self.full_model(), self.usage)
        if len(self.server_gate):
            unpack_into(mixture.gate, self.server_gate, "server-gate")
        return mixture
