"""FedRolex (Alam et al., NeurIPS 2022): sub-models whose window rolls.

docs/methods.md, 4; every round t, with rate r_c for client c::

    S_c     <- channels {t, ..., t + ceil(r_c K) - 1} mod K of every layer     (Eq. 2)
    client c trains the sub-model theta[S_c]
    theta_i <- theta_i + mean of delta theta_(c,i) over {c : i in S_c}, by n_c (Eq. 3)
    coordinates nobody held keep their values

All channels are trained evenly as the window goes round, and the server's model is
larger than what any client with r_c < 1 can hold.

Rates [C]: r_c = rate * k_c / max k, from the same expert budgets the mixtures live by.
``rate`` is that of the best client: 1 with tiers of ``expert-capacity``, whose best
tier trains the full model as in the paper, and 0.5 with one budget for all.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.errors import SettingsError
from common.moe import ModelSpec, Vector
from common.settings import Settings
from server_app.merging.means import Coordinates
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)
from server_app.strategies.sub_models.channels import window_positions


class FedRolex(ExpertStrategy):
    """Rolling sub-model extraction and coordinate-wise averaging."""

    name = "fedrolex"
    ships = "a rolling window of the dense model's channels"
    private = "data only"
    source = "FedRolex, Alam et al., NeurIPS 2022"
    use_when = (
        "the model is larger than what devices hold, and all of it shall be trained "
        "evenly"
    )
    cost = "a device's share of the channels, down and up"
    dense = True
    gate = "none"

    class Options(StrategyOptions):
        """FedRolex's own setting."""

        rate: float | None = Field(
            None,
            gt=0,
            le=1,
            description="share of the channels the client of the largest budget gets; "
            "1 with expert-capacity tiers, else 0.5",
        )

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options; raises SettingsError, also where nothing can be cut."""
        if settings.model.takes_tokens or settings.model.is_network:
            raise SettingsError(
                f"backbone = {settings.model.backbone!r} is not allowed with strategy "
                f"{cls.name!r}, which cuts windows out of channels: choose mlp, cnn, "
                "cnn1d, resnet8 or resnet18"
            )
        return super().parse_options(settings)

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.max_budget = spec.num_experts  # of the mixture: a budget is a rate here
        self.widths = tuple(self.rate_of(k + 1) for k in range(self.max_budget))

    def rate_of(self, budget: int) -> float:
        """Return r_c for a client that could hold ``budget`` experts, at most 1."""
        tiers = self.settings.rounds.expert_capacity
        rate = self.options.rate or (1.0 if len(tiers.tiers) > 1 else 0.5)
        return min(1.0, float(rate * budget / tiers.largest))

    def plan(self, view: View) -> Plan:
        """Cut everybody's window out of the global model."""
        rows, budgets = view.clients.tolist(), view.budgets.tolist()
        rates = dict(zip(rows, map(self.rate_of, budgets), strict=True))
        # Once per rate: clients with the same window share one vector.
        cut = {rate: self._cut(rate, view.server_round) for rate in {*rates.values()}}
        return Plan(
            assignment=np.ones((len(view.clients), 1), dtype=np.bool_),
            client_order={row: {"width": rate} for row, rate in rates.items()},
            content={row: cut[rate] for row, rate in rates.items()},
        )

    def _cut(self, rate: float, server_round: int) -> dict[str, Vector]:
        return {
            part: vector[self.positions(part, rate, server_round)]
            for part, vector in self.model.items()
        }

    def positions(self, part: str, rate: float, server_round: int) -> NDArray[np.intp]:
        """Return which values of a part's vector the window covers."""
        narrow = replace(self.spec, width=rate)
        start = self.first_channel(server_round)
        return window_positions(self.spec.layout(part), narrow.layout(part), start)

    def first_channel(self, server_round: int) -> int:
        """Return where the windows of a round begin."""
        return server_round

    def merge(self, reply: Reply) -> None:
        """Average each coordinate over its holders."""
        rate, server_round = reply.order.width, reply.order.server_round
        for part, delta in reply.deltas.items():
            positions = self.positions(part, rate, server_round)
            held = Coordinates(positions, self.model[part].size)
            self.sums.add(part, delta, reply.report.num_examples, held)
