"""FLEX-MoE (arXiv 2512.23070): fitness under capacity and balance.

METHODS 1, Algorithm 1; every round::

    [lo, hi] <- band of +-delta around L* + alpha_adj D             (dynamic bounds)
    A        <- argmax sum Q(c,e) x(c,e)  s.t.  sum_e x <= k_c,  lo <= sum_c x <= hi
    clients train psi and their experts with their private gates
    psi, theta_e <- usage-weighted means over the clients that held them
    Q(c,e)   <- (1 - beta) Q(c,e) + beta s(c,e)                     (assigned pairs)
    D_e      <- gamma D_e + (L* - L_e)                              (deficit)
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from common.config import Settings
from common.moe import ModelSpec
from server_app.assignment import Assignment, AssignmentProblem, solve
from server_app.fitness import accuracy_score, grown, loss_score, update_fitness
from server_app.load import dynamic_bounds, expected_bounds, updated_deficit
from server_app.strategies.base import ExpertStrategy, Plan, Reply, View

UNEVEN = 0.25
"""Spread of availability from which on loads are planned in expected replies."""


class FitnessStrategy(ExpertStrategy):
    """A strategy that learns how well each expert does at each client.

    Attributes
    ----------
    fitness : ndarray, shape (C, E)
        Q, grown when clients join.
    """

    remembers: ClassVar[tuple[str, ...]] = ("fitness",)

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.fitness = np.empty((0, self.spec.num_experts))

    def fitness_of(self, view: View) -> NDArray[np.float64]:
        """Return the participants' rows of Q, shape (P, E)."""
        self.fitness = grown(self.fitness, view.num_clients, self.settings.run.seed)
        return self.fitness[view.clients]

    def score(self, reply: Reply) -> NDArray[np.float64]:
        """Return s(c,e) for the experts the client held, shape (k,)."""
        if self.settings.assignment.fitness == "accuracy":
            return accuracy_score(reply.report.expert_accuracy)
        return loss_score(
            reply.report.expert_loss, self.settings.assignment.fitness_loss_scale
        )

    def learn(self, replies: Sequence[Reply]) -> None:
        """Update Q for pairs that were assigned and saw a sample."""
        for reply in replies:
            used = reply.samples > 0
            update_fitness(
                self.fitness,
                reply.client,
                reply.experts[used],
                self.score(reply)[used],
                self.settings.assignment.fitness_rate,
            )


class FlexMoE(FitnessStrategy):
    """Fitness-maximising assignment within dynamic load bounds."""

    name = "flex-moe"
    source = "FLEX-MoE, arXiv 2512.23070"
    remembers = (*FitnessStrategy.remembers, "deficit")

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.deficit = np.zeros(self.spec.num_experts)

    def plan(self, view: View) -> Plan:
        """Solve the assignment within the tightest feasible band."""
        rules = self.settings.assignment
        if np.ptp(view.availability) > UNEVEN:
            return self._plan_expected(view)
        bounds = dynamic_bounds(
            view.budgets,
            self.deficit,
            tolerance=rules.load_tolerance,
            gain=rules.deficit_gain,
        )
        solution = self._solve(
            AssignmentProblem(
                self.fitness_of(view),
                view.budgets,
                bounds.lower,
                bounds.upper,
                previous=view.previous,
                switching_cost=rules.switching_cost,
            )
        )
        notes = list(solution.relaxed)
        if bounds.tolerance > rules.load_tolerance:
            notes.append(
                f"load-tolerance widened from {rules.load_tolerance:g} to "
                f"{bounds.tolerance:g}: no assignment fits the tighter band"
            )
        return Plan(assignment=solution.matrix, solution=solution, notes=tuple(notes))

    def _plan_expected(self, view: View) -> Plan:
        """Plan with loads counted in expected replies, where some clients are flaky."""
        rules = self.settings.assignment
        lower, upper = expected_bounds(
            view.budgets,
            view.availability,
            self.deficit,
            tolerance=rules.load_tolerance,
            gain=rules.deficit_gain,
        )
        solution = self._solve(
            AssignmentProblem(
                self.fitness_of(view),
                view.budgets,
                lower,
                upper,
                load_weights=view.availability,
                previous=view.previous,
                switching_cost=rules.switching_cost,
            )
        )
        return Plan(
            assignment=solution.matrix, solution=solution, notes=solution.relaxed
        )

    def _solve(self, problem: AssignmentProblem) -> Assignment:
        rules = self.settings.assignment
        return solve(
            problem,
            solver=rules.solver,
            time_limit=rules.solver_time_limit,
            seed=self.settings.run.seed,
        )

    def learn(self, replies: Sequence[Reply]) -> None:
        """Update Q, and the deficit by the loads that were delivered."""
        super().learn(replies)
        load = np.zeros(self.spec.num_experts)
        for reply in replies:
            load[reply.experts] += 1
        self.deficit = updated_deficit(
            self.deficit,
            load,
            self.settings.assignment.deficit_decay,
            limit=max(1, len(replies)),
        )
