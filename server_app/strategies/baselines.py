"""The baselines of FLEX-MoE: greedy, random and round-robin; METHODS 1.

They ignore load. Everything but the plan is what FLEX-MoE does.
"""

from server_app.assignment.policies import greedy_top_k, random_k, round_robin
from server_app.strategies.base import ExpertStrategy, Plan, View
from server_app.strategies.flex_moe import FitnessStrategy


class Greedy(FitnessStrategy):
    """Every client gets the k_c experts of highest fitness."""

    name = "greedy"
    source = "baseline of arXiv 2512.23070 (accuracy- and loss-driven)"

    def plan(self, view: View) -> Plan:
        """Take the top k_c of each row of Q."""
        return Plan(
            assignment=greedy_top_k(self.fitness_of(view), view.budgets, view.units)
        )


class Random(ExpertStrategy):
    """Every client gets k_c experts by chance."""

    name = "random"
    source = "baseline of arXiv 2512.23070"

    def plan(self, view: View) -> Plan:
        """Draw k_c experts per client without replacement."""
        experts = self.spec.num_units
        held = random_k(view.budgets, experts, view.rng, view.units)
        return Plan(assignment=held)


class RoundRobin(ExpertStrategy):
    """Experts roll over the clients, k_c at a time."""

    name = "round-robin"
    source = "rolling baseline of arXiv 2512.23070"

    def plan(self, view: View) -> Plan:
        """Continue where the last round stopped."""
        return Plan(
            assignment=round_robin(
                view.budgets, self.spec.num_units, view.server_round, view.units
            )
        )
