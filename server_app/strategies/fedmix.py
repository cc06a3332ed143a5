"""FedMix (Reisser et al., arXiv 2107.06724): clients fetch the experts they use.

docs/methods.md, 4; every round::

    client c fetches {k : gate mass of k at c >= threshold}, the k_c heaviest of them
    c maximises mean_i log sum_k g_k(x_i) p_k(y_i|x_i) + rho mean_i H(g(x_i))
    r_ik     <- g_k(x_i) p_k(y_i|x_i) / sum_j g_j(x_i) p_j(y_i|x_i)  (responsibility)
    theta_k  <- theta_k + mean of delta theta_(c,k) by n_c mean_i r_ik
    psi      <- psi + mean of delta psi_c by n_c

The gate stays with the client. The server knows only its mean mass on each expert,
which tells what to send, and the mean responsibilities, which weigh the experts and
give its own predictor: sum_k pi_k p_k(y|x), pi_k the responsibility of k for all data.

Choices [C]: routing is soft among the experts held (all of them answer a sample); the
threshold is relative to the uniform mass 1/K, and at least one expert is fetched; the
spread is the entropy of the gate per sample among the experts held; before a client
has reported, its experts are drawn by the run's seed.

``avg-moe`` is the plain-average form in the tables of Fed-MoE (IJCAI 2025): the same
mixtures and local objective, but the experts a client trains are drawn anew each
round, everything is averaged by n_c, and the gate is averaged with the rest.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from common.moe import ModelSpec, expert_id
from common.moe.ensemble import GatedMixture, UsageMixture
from common.settings import Settings
from server_app.assignment import covering
from server_app.assignment.policies import random_k
from server_app.fitness import grown
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)


class LikelihoodMixture(ExpertStrategy):
    """Soft mixtures whose local objective is the likelihood of the mixture."""

    class Options(StrategyOptions):
        """What both forms share."""

        spread: float = Field(
            0.01,
            ge=0,
            description="rho, weight of the gate's entropy: against collapse",
        )

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, replace(spec, top_k=0, mixes="probabilities"))

    def weight(self, reply: Reply, part: str) -> float:
        """Weigh every part by the client's samples n_c."""
        return reply.report.num_examples


class FedMix(LikelihoodMixture):
    """Experts by gate mass, averaged by responsibility.

    Attributes
    ----------
    mass : ndarray, shape (C, K)
        Mean gate probability of every expert at every client, as last reported.
    responsibility : ndarray, shape (K,)
        Samples each expert answered for, over all rounds.
    """

    name = "fedmix"
    source = "FedMix, arXiv 2107.06724"
    use_when = (
        "clients shall hold the experts that their data use, as many as are worth it"
    )
    cost = "the experts held; all of them compute every sample"
    remembers: ClassVar[tuple[str, ...]] = ("mass", "responsibility")

    class Options(LikelihoodMixture.Options):
        """FedMix's own settings."""

        threshold: float = Field(
            0.5,
            ge=0,
            description="gate mass an expert is fetched at, in units of 1/num-experts",
        )

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.mass = np.empty((0, self.spec.num_units))
        self.responsibility = np.zeros(self.spec.num_units)

    def plan(self, view: View) -> Plan:
        """Send what each client's gate asks for."""
        # A row nobody reported yet is 0.5 with a seeded tie-break: a draw by the seed.
        self.mass = grown(self.mass, view.num_clients, self.settings.run.seed)
        threshold = self.options.threshold / self.spec.num_experts
        mass = self.mass[view.clients]
        held = passing_experts(mass, view.budgets, threshold)
        return Plan(
            assignment=covering(held, mass, view.budgets, view.layers),
            order={"report_gate": True, "gate_entropy": -self.options.spread},
        )

    def weight(self, reply: Reply, part: str) -> float:
        """Weigh an expert by n_c times its mean responsibility there."""
        expert = expert_id(part)
        share = 1.0 if expert is None else responsibility_of(reply)[expert]
        return super().weight(reply, part) * share

    def learn(self, replies: Sequence[Reply]) -> None:
        """Remember gate masses, and who answered for how many samples."""
        for reply in replies:
            self.mass[reply.client] = reply.report.gate_mass
            for expert, share in responsibility_of(reply).items():
                self.responsibility[expert] += reply.report.num_examples * share

    def global_model(self) -> nn.Module:
        """Return the mixture with pi_k, the responsibility of k for all data."""
        return UsageMixture(self.full_model(), self.responsibility)


class AvgMoE(LikelihoodMixture):
    """The plain average of everything, gate included."""

    name = "avg-moe"
    ships = "extractor, assigned experts, gate"
    private = "data only"
    source = "plain-average FedMix in Fed-MoE, IJCAI 2025 (Table 7)"
    use_when = "a baseline: fedmix with plain averages and a shared gate"
    cost = "the experts held and the gate; all of them compute every sample"
    gate = "shared"

    def plan(self, view: View) -> Plan:
        """Draw k_c experts per client."""
        return Plan(
            assignment=random_k(
                view.budgets, self.spec.num_units, view.rng, view.layers
            ),
            order={"gate_entropy": -self.options.spread},
        )

    def global_model(self) -> nn.Module:
        """Return the mixture of all experts under the averaged gate."""
        return GatedMixture(self.full_model())


def responsibility_of(reply: Reply) -> dict[int, float]:
    """Return the mean responsibility of each expert the client held, by global id."""
    return dict(zip(reply.order.experts, reply.report.responsibility, strict=True))


def passing_experts(
    mass: NDArray[np.float64],
    budgets: NDArray[np.int64],
    threshold: float,
) -> NDArray[np.bool_]:
    """Return the experts whose gate mass passes, the heaviest up to each budget.

    Parameters
    ----------
    mass : ndarray, shape (P, K)
        Mean gate probabilities.
    budgets : ndarray of int, shape (P,)
        Most experts each client can hold.
    threshold : float
        Mass an expert needs; the heaviest of a row is taken whatever its mass.

    Returns
    -------
    ndarray of bool, shape (P, K)
    """
    rank = (-mass).argsort(axis=1, kind="stable").argsort(axis=1)
    within = rank < budgets[:, None]
    passes: NDArray[np.bool_] = within & (mass >= threshold)
    return passes | (rank == 0)
