"""FedAvg and FedProx: one dense model, trained by everyone; docs/methods.md, 4.

FedAvg (McMahan et al., AISTATS 2017, Algorithm 1); every round::

    every participant c trains the whole model on its own n_c samples
    w <- w + sum_c (n_c / n) delta w_c

FedProx (Li et al., MLSys 2020, Eq. 2) adds mu/2 ||w - w_t||^2 to each local objective,
which keeps a client near the model it was sent.

The dense model is the mixture with one expert and nothing to route: its experts do not
grow with ``num-experts``, and its bytes are those of one extractor and one expert.
"""

import numpy as np
from pydantic import Field

from common.local_method import LocalMethod
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
    weighted_sums,
)


class FedAvg(ExpertStrategy):
    """The mean of everybody's dense model, weighted by samples."""

    name = "fedavg"
    ships = "extractor, one expert: the dense model"
    private = "data only"
    source = "FedAvg, McMahan et al., AISTATS 2017"
    use_when = (
        "devices hold the same kind of data in other mixes of classes: with the "
        "settings of when-a-mixture-pays no mixture was better"
    )
    cost = "the measure of all others: one dense model down and up"
    dense = True
    gate = "none"

    def plan(self, view: View) -> Plan:
        """Send the one model to every participant."""
        return Plan(assignment=np.ones_like(view.previous))

    @weighted_sums
    def merge(self, reply: Reply) -> None:
        """Add n_c delta w_c to the running sums; ``finish`` adds their mean to w."""
        for part, delta in reply.deltas.items():
            self.sums.add(part, delta, weight=reply.report.num_examples)


class FedProx(FedAvg):
    """FedAvg with a proximal term in the local objective."""

    name = "fedprox"
    source = "FedProx, Li et al., MLSys 2020"
    use_when = "as fedavg, where clients train for long and drift apart"
    cost = "as fedavg"

    class Options(StrategyOptions):
        """FedProx's own setting."""

        mu: float = Field(0.01, ge=0, description="mu of mu/2 ||w - w_t||^2")

    def local_method(self) -> LocalMethod:
        """Train with the proximal term."""
        return LocalMethod(proximal=self.options.mu)
