"""HFedMoE (Fang et al., arXiv 2601.00583): the experts that matter to a client.

docs/methods.md, 4; every round::

    I(c,e)  <- g_e + lambda (i_e(Z;Y) - beta i_e(X;Z))              (importance)
    A_c     <- the k_c experts of highest I(c,e)                    (budget)
    clients train psi, their experts and the gate's rows of these
    C_e     <- {c : u(c,e) / sum_j u(c,j) >= tau}                   (active for e)
    theta_e <- theta_e + mean over C_e of delta by n_c I(c,e), row e of the gate alike
    psi     <- psi + mean of delta by n_c

The paper states the ideas: importance by contribution, a subset chosen from an
information-bottleneck view within the budget, aggregation over active experts, gate
included, by importance. The form is ours [C]. With Z the expert the gate draws for an
input X of label Y, the bottleneck wants Z to tell much about Y and little else about X,
so an expert gains by its share of I(Z;Y) and pays beta times its share of I(X;Z); g_e
is the gate's mean score. All three are means over the client's data, reported for all
experts, held or not. As i_e(X;Z) <= g_e log(1/g_e), importance is positive wherever
lambda beta log(1/g_e) < 1. Before a client has reported, its experts are drawn by the
run's seed.

A row of the gate is trained only where its expert is held, so it is averaged over the
clients that held and used it: counting the others would pull it back to where it was.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import nn

from common.moe import GATE, Layout, ModelSpec, expert_id
from common.moe.ensemble import GatedMixture
from common.settings import Settings
from common.wire import TrainReport
from server_app.assignment.policies import greedy_top_k
from server_app.fitness import grown
from server_app.merging.means import Coordinates
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)


class HFedMoE(ExpertStrategy):
    """Experts by importance, averaged where they are active.

    Attributes
    ----------
    importance : ndarray, shape (C, E)
        I(c,e) of each client's last report, in nats.
    """

    name = "hfedmoe"
    ships = "extractor, assigned experts, gate"
    private = "data only"
    source = "HFedMoE, arXiv 2601.00583"
    use_when = (
        "the gate shall be shared, and experts chosen by what they tell of a client's "
        "data"
    )
    cost = "the experts held and the gate"
    gate = "shared"
    remembers: ClassVar[tuple[str, ...]] = ("importance",)

    class Options(StrategyOptions):
        """HFedMoE's own settings."""

        information: float = Field(
            1.0, ge=0, description="lambda, weight of the information-bottleneck term"
        )
        compression: float = Field(
            0.1, ge=0, description="beta, price of what the gate says about inputs"
        )
        tau: float = Field(
            0.1, ge=0, le=1, description="share of samples that makes an expert active"
        )

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.importance = np.empty((0, self.spec.num_units))

    def plan(self, view: View) -> Plan:
        """Send each client the experts that matter most to it."""
        # A row nobody reported yet is 0.5 with a seeded tie-break: a draw by the seed.
        seed = self.settings.run.seed
        self.importance = grown(self.importance, view.num_clients, seed)
        return Plan(
            assignment=greedy_top_k(
                self.importance[view.clients], view.budgets, view.layers
            ),
            order={"report_gate": True, "report_information": True},
        )

    def importance_of(self, report: TrainReport) -> NDArray[np.float64]:
        """Return I(c,e) by a client's report, shape (E,)."""
        return expert_importance(
            report.gate_mass,
            report.label_information,
            report.input_information,
            information=self.options.information,
            compression=self.options.compression,
        )

    def weight(self, reply: Reply, part: str) -> float:
        """Weigh an active expert by n_c I(c,e), the extractor by n_c."""
        samples, expert = reply.report.num_examples, expert_id(part)
        if expert is None:
            return samples
        layers = self.spec.layers
        routed = reply.samples[layers[reply.experts] == layers[expert]].sum()
        if reply.samples_of(expert) < self.options.tau * routed:
            return 0
        return samples * max(0.0, float(self.importance_of(reply.report)[expert]))

    def merge(self, reply: Reply) -> None:
        """Merge extractor and experts, and of the gate the rows of these experts."""
        gate = reply.deltas[GATE]
        for part, delta in reply.deltas.items():
            if part == GATE:
                continue
            weight = self.weight(reply, part)
            self.sums.add(part, delta, weight)
            if (expert := expert_id(part)) is not None:
                row = gate_row(self.layout(GATE), expert)
                self.sums.add(GATE, gate[row], weight, Coordinates(row, gate.size))

    def learn(self, replies: Sequence[Reply]) -> None:
        """Remember what matters to each client."""
        for reply in replies:
            self.importance[reply.client] = self.importance_of(reply.report)

    def global_model(self) -> nn.Module:
        """Return the mixture of all experts under the shared gate."""
        return GatedMixture(self.full_model())


def expert_importance(
    score: ArrayLike,
    label_information: ArrayLike,
    input_information: ArrayLike,
    *,
    information: float,
    compression: float,
) -> NDArray[np.float64]:
    """Return g + lambda (i(Z;Y) - beta i(X;Z)), expert by expert.

    Parameters
    ----------
    score : array_like, shape (E,)
        Mean gate probabilities g_e.
    label_information, input_information : array_like, shape (E,)
        Each expert's share of I(Z;Y) and of I(X;Z), in nats.
    information, compression : float
        lambda and beta.
    """
    gain = np.asarray(label_information, dtype=np.float64)
    price = np.asarray(input_information, dtype=np.float64)
    return np.asarray(score) + information * (gain - compression * price)


def gate_row(layout: Layout, expert: int) -> NDArray[np.intp]:
    """Return where an expert's weights and bias lie in the gates' flat vector."""
    pieces, start = [], 0
    first: dict[str, int] = {}
    for name, (experts, *rest) in layout:
        # The gates of several layers are named by number, each as wide as its layer.
        layer = first.setdefault(name.rpartition(".")[0], len(first))
        length = int(np.prod(rest))
        if expert // experts == layer:
            pieces.append(start + expert % experts * length + np.arange(length))
        start += experts * length
    return np.concatenate(pieces)
