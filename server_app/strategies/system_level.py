"""The system-level approach (arXiv 2507.05685): fitness, usage and capacity.

METHODS 2; every round::

    k_c <- max(1, min(memory, time, uplink) / what one expert needs)      (capacity)
    S   <- w_f F / max F - w_u U / max U                              (desirability)
    A_c <- top k_c of S(c, .)                       (simultaneously or sequentially)
    F   <- (1 - beta) F + beta r  if assigned, else (1 - rho) F       (stale decays)
           r = w exp(-l) + (1 - w) u_ce / sum_e u_ce
    U   <- lambda U + sum_c contribution                              (expert usage)
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.config import Settings
from common.moe import ModelSpec, expert_part
from common.sections import SettingsError
from server_app.assignment.policies import greedy_top_k
from server_app.assignment.units import layer_shares
from server_app.fitness import grown, loss_score, update_fitness
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)


class Options(StrategyOptions):
    """What the paper leaves open ([C] in METHODS 2)."""

    loss_share: float = Field(0.5, ge=0, le=1, description="w in r, 0 to 1")
    stale_decay: float = Field(0.02, ge=0, lt=1, description="rho, 0 to <1")
    usage_decay: float = Field(0.9, ge=0, le=1, description="lambda, 0 to 1")
    fitness_weight: float = Field(0.5, ge=0, description="w_f, at least 0")
    usage_weight: float = Field(0.5, ge=0, description="w_u, at least 0")
    contribution: Literal["samples", "flops"] = Field(
        "samples", description="what usage counts: routed samples or their FLOPs"
    )
    sequential: bool = Field(
        False, description="whether clients see the load planned before them"
    )
    capacity: Literal["reported", "estimated"] = Field(
        "reported",
        description="believe profiles, or estimate from completion times",
    )


def decay_stale(
    fitness: NDArray[np.float64], assigned: NDArray[np.bool_], rho: float
) -> None:
    """Decay, in place, the pairs that were not assigned: F <- (1 - rho) F."""
    fitness[~assigned] *= 1 - rho


def desirability(
    fitness: NDArray[np.float64],
    usage: NDArray[np.float64],
    fitness_weight: float,
    usage_weight: float,
) -> NDArray[np.float64]:
    """Return S = w_f F / max F - w_u U / max U.

    Parameters
    ----------
    fitness : ndarray, shape (P, E)
    usage : ndarray, shape (E,)

    Returns
    -------
    ndarray, shape (P, E)
    """
    best, busiest = fitness.max(initial=0.0), usage.max(initial=0.0)
    relevance = fitness / best if best > 0 else fitness
    attention = usage / busiest if busiest > 0 else usage
    return fitness_weight * relevance - usage_weight * attention


class SystemLevel(ExpertStrategy):
    """Top-k of a desirability that rewards fitness and neglected experts.

    Attributes
    ----------
    fitness : ndarray, shape (C, E)
        F.
    attention : ndarray, shape (E,)
        U, the decayed expert usage.
    seconds_per_expert : ndarray, shape (C,)
        Running mean of what one expert took each client; 0 where never seen.
    """

    name = "system-level"
    source = "system-level approach, arXiv 2507.05685"
    remembers = ("fitness", "attention", "seconds_per_expert")
    Options = Options

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        if self.options.capacity == "estimated" and not settings.rounds.train_seconds:
            raise SettingsError(
                "train-seconds = 0.0 is not allowed with capacity = 'estimated': the "
                "estimate is of how many experts a client trains in that time"
            )
        self.fitness = np.empty((0, self.spec.num_units))
        self.attention = np.zeros(self.spec.num_units)
        self.seconds_per_expert = np.zeros(0)

    def plan(self, view: View) -> Plan:
        """Rank experts for every participant and take the top k_c."""
        self.fitness = grown(self.fitness, view.num_clients, self.settings.run.seed)
        joined = view.num_clients - len(self.seconds_per_expert)
        self.seconds_per_expert = np.append(self.seconds_per_expert, np.zeros(joined))
        capacity = self.capacity(view)
        fitness = self.fitness[view.clients]
        if not self.options.sequential:
            return Plan(
                assignment=greedy_top_k(self._score(fitness), capacity, view.units)
            )
        # A client counts for its share of the samples the round before brought.
        planned = np.zeros(self.spec.num_units)
        load = self._contribution(self.usage.sum() / max(1, view.server_round - 1))
        each = load / max(1, capacity.sum())
        assignment = np.zeros(fitness.shape, dtype=np.bool_)
        for row in view.rng.permutation(len(fitness)):
            score = self._score(fitness[[row]], planned)
            assignment[row] = greedy_top_k(score, capacity[[row]], view.units)[0]
            planned[assignment[row]] += max(each, 1.0)
        return Plan(assignment=assignment)

    def _score(
        self, fitness: NDArray[np.float64], planned: float | NDArray[np.float64] = 0.0
    ) -> NDArray[np.float64]:
        return desirability(
            fitness,
            self.attention + planned,
            self.options.fitness_weight,
            self.options.usage_weight,
        )

    def capacity(self, view: View) -> NDArray[np.int64]:
        """Return the budget of every participant, shape (P,)."""
        rounds, least = self.settings.rounds, view.units.set_size
        declared = least * np.array([p.expert_cap for p in view.profiles])
        cautious = np.rint((1 - rounds.capacity_margin) * declared)
        caps = np.where(declared > 0, np.minimum(cautious, view.budgets), view.budgets)
        if self.options.capacity == "estimated":
            seen = self.seconds_per_expert[view.clients]
            usable = (1 - rounds.capacity_margin) * rounds.train_seconds
            fits = np.floor(usable / np.where(seen > 0, seen, np.nan))
            # Seconds are those of an expert, whatever it takes of a budget.
            caps = np.fmin(caps, fits * least / view.units.num_layers)
        return np.maximum(least, caps).astype(np.int64)

    def learn(self, replies: Sequence[Reply]) -> None:
        """Update F for assigned pairs, decay the others, and count usage."""
        beta = self.settings.assignment.fitness_rate
        assigned = np.zeros(self.fitness.shape, dtype=np.bool_)
        contribution = np.zeros(self.spec.num_units)
        for reply in replies:
            assigned[reply.client, reply.experts] = True
            share = layer_shares(reply.samples, self.spec.layers[reply.experts])
            w = self.options.loss_share
            loss = loss_score(reply.report.expert_loss)
            # An expert that saw no sample has no loss; exp(-0) would flatter it.
            score = w * np.where(reply.samples > 0, loss, 0) + (1 - w) * share
            update_fitness(self.fitness, reply.client, reply.experts, score, beta)
            contribution[reply.experts] += reply.samples
            per_expert = reply.report.seconds_train / len(reply.experts)
            before = self.seconds_per_expert[reply.client]
            self.seconds_per_expert[reply.client] = (
                per_expert if before == 0 else 0.7 * before + 0.3 * per_expert
            )
        decay_stale(self.fitness, assigned, self.options.stale_decay)
        self.attention = self.options.usage_decay * self.attention + self._contribution(
            contribution
        )

    def _contribution(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.options.contribution == "samples":
            return samples
        first = [self.spec.flops(expert_part(e)) for e in self.spec.one_of_each]
        # Operations are those of a sample, usage counts what it is routed as.
        each = np.repeat(first, self.spec.num_experts) / self.spec.positions
        return samples * each
