"""CentMoE: the mixture trained at the server alone; docs/methods.md, 4.

The baseline of Fed-MoE (Jiang et al., IJCAI 2025, section 5.1); every round::

    nobody is sent anything
    psi, theta, gate <- steps on cross-entropy + balancing loss over D^r

The plain mixture (Shazeer et al., ICLR 2017) sees the reserved samples D^r and nothing
else: what they are worth without any client. Rows of the assignment are empty, loads
are zero and a balance of loads does not exist.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from pydantic import Field
from torch import nn

from common.augment import find_augment
from common.moe.ensemble import GatedMixture
from common.seeding import stream
from common.settings import Settings
from common.shape import dataset_of
from server_app.strategies.base import ExpertStrategy, Plan, StrategyOptions, View
from server_app.strategies.server_training import (
    Tensors,
    require_reserved,
    reserved_tensors,
    train_mixture,
)


class CentMoE(ExpertStrategy):
    """A K-expert mixture on the server's reserved samples; clients stay idle."""

    name = "cent-moe"
    ships = "nothing"
    private = "everything a client has"
    source = "CentMoE, baseline of Fed-MoE, IJCAI 2025"
    use_when = "a baseline: what the server's own samples are worth without any client"
    cost = "no messages; the server trains (reserved-samples)"
    gate = "shared"

    class Options(StrategyOptions):
        """CentMoE's own settings; the rest is what clients train with."""

        epochs: int = Field(
            0, ge=0, description="passes over the reserved set a round; 0: local-epochs"
        )

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options; raises SettingsError, also without reserved samples."""
        require_reserved(settings, cls.name, "there is nothing else to train on")
        return super().parse_options(settings)

    def plan(self, view: View) -> Plan:
        """Ask nobody."""
        self._round = view.server_round
        nobody = np.zeros((len(view.clients), self.spec.num_units), dtype=np.bool_)
        return Plan(assignment=nobody)

    def finish(self) -> None:
        """Train on the reserved set."""
        model = self.full_model()
        training = self.settings.training_in(self._round)
        data = dataset_of(self.settings)
        train_mixture(
            model,
            self._reserved,
            training=training,
            epochs=self.options.epochs or training.local_epochs,
            gate_balance=self.settings.model.gate_balance,
            rng=stream(self.settings.run.seed, "server-train", self._round),
            augment=find_augment(training.augment, data.input_shape, data.normaliser),
        )
        self.model |= model.vectors(self.model)

    def global_model(self) -> nn.Module:
        """Return the gated mixture: the gate is the server's own."""
        return GatedMixture(self.full_model())

    @cached_property
    def _reserved(self) -> Tensors:
        return reserved_tensors(self.settings)
