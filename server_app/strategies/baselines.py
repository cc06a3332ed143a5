"""The baselines of FLEX-MoE: greedy, random and round-robin; docs/methods.md, 1.

Every round::

    greedy       A_c <- the k_c experts of highest Q(c,e), which learns as FLEX-MoE's
    random       A_c <- k_c experts drawn anew
    round-robin  A_c <- the next k_c of a ring of experts that turns by one a round

They ignore load. Training and merging are FLEX-MoE's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.moe import ModelSpec
from common.settings import Settings
from server_app.assignment.policies import greedy_top_k, random_k, round_robin
from server_app.fitness import Scoring, grown
from server_app.strategies.base import ExpertStrategy, Plan, Reply, View


class Greedy(ExpertStrategy):
    """Every client gets the k_c experts of highest fitness.

    Attributes
    ----------
    fitness : ndarray, shape (C, E)
        Q, as in FLEX-MoE.
    """

    name = "greedy"
    source = "baseline of arXiv 2512.23070 (accuracy- and loss-driven)"
    use_when = "a baseline: fitness alone, without balance"
    cost = "as flex-moe"
    remembers = ("fitness",)

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.fitness = np.empty((0, self.spec.num_units))
        self._scoring = Scoring(settings.assignment, spec.num_classes)

    def plan(self, view: View) -> Plan:
        """Take the top k_c of each row of Q."""
        self.fitness = grown(self.fitness, view.num_clients, self.settings.run.seed)
        fitness = self.fitness[view.clients]
        return Plan(assignment=greedy_top_k(fitness, view.budgets, view.layers))

    def learn(self, replies: Sequence[Reply]) -> None:
        """Move Q towards the scores."""
        for reply in replies:
            self._scoring.update(
                self.fitness,
                reply.client,
                reply.experts,
                accuracy=reply.report.expert_accuracy,
                loss=reply.report.expert_loss,
                samples=reply.samples,
            )

    def fitness_matrix(self) -> NDArray[np.float64]:
        """Return Q, shape (C, E)."""
        return self.fitness


class Random(ExpertStrategy):
    """Every client gets k_c experts by chance."""

    name = "random"
    source = "baseline of arXiv 2512.23070"
    use_when = "a baseline: neither fitness nor balance"
    cost = "as flex-moe"

    def plan(self, view: View) -> Plan:
        """Draw k_c experts per client without replacement."""
        experts = self.spec.num_units
        return Plan(assignment=random_k(view.budgets, experts, view.rng, view.layers))


class RoundRobin(ExpertStrategy):
    """Experts roll over the clients, k_c at a time."""

    name = "round-robin"
    source = "rolling baseline of arXiv 2512.23070"
    use_when = "a baseline: balance over the rounds, without fitness"
    cost = "as flex-moe"

    def plan(self, view: View) -> Plan:
        """Turn the ring by one expert a round."""
        experts, turn = self.spec.num_units, view.server_round
        return Plan(assignment=round_robin(view.budgets, experts, turn, view.layers))
