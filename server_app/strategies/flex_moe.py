"""FLEX-MoE (arXiv 2512.23070): fitness under capacity and balance.

METHODS 1, Algorithm 1; every round::

    [lo, hi] <- band of +-delta around L* + alpha_adj D             (dynamic bounds)
    A        <- argmax sum Q(c,e) x(c,e)  s.t.  sum_e x <= k_c,  lo <= sum_c x <= hi
    clients train psi and their experts with their private gates
    psi, theta_e <- usage-weighted means over the clients that held them
    Q(c,e)   <- (1 - beta) Q(c,e) + beta s(c,e)                     (assigned pairs)
    D_e      <- gamma D_e + (L* - L_e)                              (deficit)

With several mixture layers an expert of each is a column of the one problem, and a
client must hold one of every layer. Experts of all layers have the same target, the
clients' k_c over E, so deficits balance layers against each other as well.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from common.config import Settings
from common.moe import ModelSpec
from common.sections import SettingsError
from server_app.assignment import Assignment, AssignmentProblem, covering, solve
from server_app.fitness import accuracy_score, grown, loss_score, update_fitness
from server_app.load import dynamic_bounds, expected_bounds, updated_deficit
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)

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
        self.fitness = np.empty((0, self.spec.num_units))

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

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options.

        Raises
        ------
        SettingsError
            If an option is wrong, or the solver cannot express several layers.
        """
        layers = settings.model.num_layers
        if settings.assignment.solver == "flow" and layers > 1:
            raise SettingsError(
                f"solver = 'flow' is not allowed with {layers} mixture layers "
                "(moe-layers): one expert of each is no flow; choose auto or cp-sat"
            )
        return super().parse_options(settings)

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.deficit = np.zeros(self.spec.num_units)

    def plan(self, view: View) -> Plan:
        """Solve the assignment within the tightest feasible band."""
        rules = self.settings.assignment
        if np.ptp(view.availability) > UNEVEN:
            return self._plan_expected(view)
        bounds = dynamic_bounds(
            _experts_held(view),
            self.deficit,
            tolerance=rules.load_tolerance,
            gain=rules.deficit_gain,
        )
        held, solution, notes = self._solve(
            view,
            AssignmentProblem(
                self.fitness_of(view),
                view.budgets,
                bounds.lower,
                bounds.upper,
                previous=view.previous,
                switching_cost=rules.switching_cost,
                **_layers_of(view),
            ),
        )
        if bounds.tolerance > rules.load_tolerance:
            notes.append(
                f"load-tolerance widened from {rules.load_tolerance:g} to "
                f"{bounds.tolerance:g}: no assignment fits the tighter band"
            )
        return Plan(assignment=held, solution=solution, notes=tuple(notes))

    def _plan_expected(self, view: View) -> Plan:
        """Plan with loads counted in expected replies, where some clients are flaky."""
        rules = self.settings.assignment
        lower, upper = expected_bounds(
            _experts_held(view),
            view.availability,
            self.deficit,
            tolerance=rules.load_tolerance,
            gain=rules.deficit_gain,
        )
        held, solution, notes = self._solve(
            view,
            AssignmentProblem(
                self.fitness_of(view),
                view.budgets,
                lower,
                upper,
                load_weights=view.availability,
                previous=view.previous,
                switching_cost=rules.switching_cost,
                **_layers_of(view),
            ),
        )
        return Plan(assignment=held, solution=solution, notes=tuple(notes))

    def _solve(
        self, view: View, problem: AssignmentProblem
    ) -> tuple[NDArray[np.bool_], Assignment, list[str]]:
        """Return who holds what, the solver's answer and what was relaxed."""
        rules = self.settings.assignment
        solution = solve(
            problem,
            solver=rules.solver,
            time_limit=rules.solver_time_limit,
            seed=self.settings.run.seed,
        )
        # The solver weighs a layer without an expert like any bound that conflicts;
        # for a client it is the end. Whoever could hold one of each shall.
        wanted = solution.matrix
        empty = ~wanted.any(axis=1)
        if view.units.num_layers > 1 and empty.any():
            wanted = wanted.copy()
            wanted[empty, problem.fitness[empty].argmax(axis=1)] = True
        held = covering(wanted, problem.fitness, view.budgets, view.units)
        notes = list(solution.relaxed)
        if (repaired := int((held != solution.matrix).any(axis=1).sum())) > 0:
            notes.append(f"{repaired} clients got an expert of a layer they lacked")
        return held, solution, notes

    def learn(self, replies: Sequence[Reply]) -> None:
        """Update Q, and the deficit by the loads that were delivered."""
        super().learn(replies)
        load = np.zeros(self.spec.num_units)
        for reply in replies:
            load[reply.experts] += 1
        self.deficit = updated_deficit(
            self.deficit,
            load,
            self.settings.assignment.deficit_decay,
            limit=max(1, len(replies)),
        )


def _experts_held(view: View) -> NDArray[np.int64]:
    """Return how many experts each participant can hold, as many of every layer."""
    return view.units.sets(view.budgets) * view.units.num_layers


def _layers_of(view: View) -> dict[str, Any]:
    """Return what the problem says of layers; nothing if there is one."""
    if view.units.num_layers == 1:
        return {}
    return {
        "groups": view.units.layers,
        "sizes": None if view.units.counted else view.units.sizes,
    }
