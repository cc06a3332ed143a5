"""FLEX-MoE (arXiv 2512.23070): fitness under capacity and balance.

docs/methods.md, 1, Algorithm 1; every round::

    [lo, hi] <- band of +-delta around L* + alpha_adj D             (dynamic bounds)
    A        <- argmax sum Q(c,e) x(c,e)  s.t.  sum_e x <= k_c,  lo <= sum_c x <= hi
    clients train psi and their experts with their private gates
    psi      <- psi + sum_c n_c delta psi_c / sum_c n_c
    theta_e  <- theta_e + sum_c u(c,e) delta theta_(c,e) / sum_c u(c,e)
    Q(c,e)   <- (1 - beta) Q(c,e) + beta s(c,e)                     (assigned pairs)
    D_e      <- gamma D_e + (mean L - L_e)                          (deficit)

L* is what everybody's budget makes of an expert's load, L_e what was delivered: holders
whose reply was merged. The deficit counts from the mean of these, so that clients that
drop out make no expert look neglected. What is held by clients still at work on an
order of before counts as delivered when others are planned. u(c,e) are the samples that
c's gate sent to e: nobody used it, it stays as it is. s is accuracy or
exp(-alpha_L loss) of these samples.

With several mixture layers an expert of each is a column of the one problem, and a
client must hold one of every layer. Experts of all layers have the same target, the
clients' k_c over E, so deficits balance layers against each other as well.

Against clients that lie, Q may be measured by the server, or chance decide within the
band, and experts without ``min-holders`` are left out of a round (docs/threats.md).
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.moe import ModelSpec, expert_id
from common.settings import Settings
from server_app.assignment.every_layer import solve_every_layer
from server_app.fitness import Scoring, grown, told_apart
from server_app.load import (
    adjusted_target,
    dynamic_bounds,
    updated_deficit,
    widened,
    with_holders,
)
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    View,
    weighted_sums,
)
from server_app.strategies.server_check import ServerCheck


class FlexMoE(ExpertStrategy):
    """Fitness-maximising assignment within dynamic load bounds.

    Attributes
    ----------
    fitness : ndarray, shape (C, E)
        Q, grown when clients join.
    deficit : ndarray, shape (E,)
        D.
    """

    name = "flex-moe"
    source = "FLEX-MoE, arXiv 2512.23070"
    use_when = (
        "devices hold a few experts of many, and every expert shall be trained as "
        "much as any other; where devices see or mean different things, kin was "
        "better"
    )
    cost = "the experts held; training of a dense model as wide as these together"
    remembers: ClassVar[tuple[str, ...]] = ("fitness", "deficit")

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.fitness = np.empty((0, self.spec.num_units))
        self.deficit = np.zeros(self.spec.num_units)
        self._scoring = Scoring(settings.assignment, spec.num_classes)
        self._participants = 0  # of the round planned last
        rules = settings.assignment
        self._by_chance = rules.expert_choice == "chance" or (
            rules.expert_choice == "auto" and settings.merge.is_robust
        )
        self._checked: dict[int, tuple[ArrayLike, ArrayLike]] = {}  # of this round
        self._check: ServerCheck | None = None
        if rules.fitness_from == "server":
            self._check = ServerCheck(settings, self.spec, self.name)

    def plan(self, view: View) -> Plan:
        """Maximise fitness within the budgets and the tightest feasible bounds."""
        rules = self.settings.assignment
        self._participants = len(view.clients) + len(view.at_work)
        coming = view.at_work.sum(axis=0)
        bounds = dynamic_bounds(
            view.budgets,
            self.deficit + coming.mean() - coming,
            tolerance=rules.load_tolerance,
            gain=rules.deficit_gain,
        )
        target = adjusted_target(view.budgets, self.deficit, rules.deficit_gain)
        bounds, closed = with_holders(
            bounds, view.budgets, target, rules.min_holders, view.layers.of_experts
        )
        value = self.fitness_of(view)
        if self._by_chance:  # nothing a client says decides what it holds
            value = view.rng.random(value.shape)
        # A bonus for what is there, not a cost of what is new: no budget stays empty
        # because a first expert costs more than it is worth.
        value = value + rules.switching_cost * view.previous
        answer = solve_every_layer(
            value,
            view.budgets,
            bounds,
            view.layers,
            closed,
            solver=rules.solver,
            time_limit=rules.solver_time_limit,
            seed=self.settings.run.seed,
        )
        notes = (*answer.relaxed, *widened(bounds, rules.load_tolerance))
        return Plan(assignment=answer.matrix, solution=answer, notes=notes)

    def fitness_of(self, view: View) -> NDArray[np.float64]:
        """Return what the assignment maximises, shape (P, E): the participants' Q."""
        self.fitness = grown(self.fitness, view.num_clients, self.settings.run.seed)
        return told_apart(self.fitness[view.clients])

    @weighted_sums
    def merge(self, reply: Reply) -> None:
        """Add a client's changes to the running sums: psi by n_c, experts by u(c,e).

        ``finish`` adds every sum over its weights to the model. With
        ``expert-weighting = "samples"`` experts are weighted by n_c as well.
        """
        by_usage = self.settings.merge.expert_weighting == "usage"
        for part, delta in reply.deltas.items():
            weight, expert = reply.report.num_examples, expert_id(part)
            if by_usage and expert is not None:
                weight = reply.samples_of(expert)
            self.sums.add(part, delta, weight)
        if self._check is not None:
            self._checked[reply.client] = self._check(self.model, reply)

    def learn(self, replies: Sequence[Reply]) -> None:
        """Move Q towards the scores, and D by the loads that were delivered."""
        rules, load = self.settings.assignment, np.zeros(self.spec.num_units)
        for reply in replies:
            load[reply.experts] += 1
            said = reply.report.expert_accuracy, reply.report.expert_loss
            accuracy, loss = self._checked.get(reply.client, said)
            self._scoring.update(
                self.fitness,
                reply.client,
                reply.experts,
                accuracy=accuracy,
                loss=loss,
                samples=reply.samples,
            )
        self._checked.clear()
        self.deficit = updated_deficit(
            self.deficit, load, rules.deficit_decay, limit=self._participants
        )

    def fitness_matrix(self) -> NDArray[np.float64]:
        """Return Q, shape (C, E)."""
        return self.fitness
