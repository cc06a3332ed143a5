"""The system-level approach (arXiv 2507.05685): fitness, usage and capacity.

docs/methods.md, 2; every round::

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

from common.errors import SettingsError
from common.moe import ModelSpec, expert_part
from common.settings import Settings
from server_app.assignment.policies import greedy_top_k
from server_app.fitness import grown, loss_score, update_fitness
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)


class Options(StrategyOptions):
    """What the paper leaves open ([C] in docs/methods.md, 2)."""

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
    use_when = (
        "devices differ in memory, speed and uplink, and what they hold shall follow "
        "from that"
    )
    cost = "the experts held, as many as a device carries"
    remembers = ("fitness", "attention", "seconds_per_expert")
    Options = Options

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options.

        Raises
        ------
        SettingsError
            If an option is wrong, or there is no time to estimate capacities for.
        """
        options = super().parse_options(settings)
        estimated = getattr(options, "capacity", "") == "estimated"
        if estimated and not settings.rounds.train_seconds:
            raise SettingsError(
                "train-seconds = 0.0 is not allowed with capacity = 'estimated': the "
                "estimate is of how many experts a client trains in that time"
            )
        return options

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.fitness = np.empty((0, self.spec.num_units))
        self.attention = np.zeros(self.spec.num_units)
        self.seconds_per_expert = np.zeros(0)

    def fitness_matrix(self) -> NDArray[np.float64]:
        """Return the fitness, shape (C, E)."""
        return self.fitness

    def plan(self, view: View) -> Plan:
        """Rank experts for every participant and take the top k_c."""
        self.fitness = grown(self.fitness, view.num_clients, self.settings.run.seed)
        joined = view.num_clients - len(self.seconds_per_expert)
        self.seconds_per_expert = np.append(self.seconds_per_expert, np.zeros(joined))
        capacity, fitness = self.capacity(view), self.fitness[view.clients]
        if self.options.sequential:
            return Plan(assignment=self._one_by_one(view, fitness, capacity))
        score = self._desirability(fitness, self.attention)
        return Plan(assignment=greedy_top_k(score, capacity, view.layers))

    def _one_by_one(
        self, view: View, fitness: NDArray[np.float64], capacity: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Plan clients in a drawn order, each with what is planned so far in U."""
        # A placement counts for its share of the samples a round has brought so far.
        samples = self.usage.sum() / max(1, view.server_round - 1)
        placements = max(1.0, float(capacity.sum()))
        share = np.full(self.spec.num_units, max(1.0, samples / placements))
        each, planned = self._contribution(share), np.zeros(self.spec.num_units)
        assignment = np.zeros(fitness.shape, dtype=np.bool_)
        for row in view.rng.permutation(len(fitness)):
            score = self._desirability(fitness[[row]], self.attention + planned)
            assignment[row] = greedy_top_k(score, capacity[[row]], view.layers)[0]
            planned[assignment[row]] += each[assignment[row]]
        return assignment

    def _desirability(
        self, fitness: NDArray[np.float64], usage: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        weights = self.options.fitness_weight, self.options.usage_weight
        return desirability(fitness, usage, *weights)

    def capacity(self, view: View) -> NDArray[np.int64]:
        """Return the budget of every participant, shape (P,)."""
        rounds, least = self.settings.rounds, view.layers.num_layers
        declared = least * np.array([p.expert_cap for p in view.profiles])
        cautious = np.rint((1 - rounds.capacity_margin) * declared)
        caps = np.where(declared > 0, np.minimum(cautious, view.budgets), view.budgets)
        if self.options.capacity == "estimated":
            seen = self.seconds_per_expert[view.clients]
            usable = (1 - rounds.capacity_margin) * rounds.train_seconds
            fits = np.floor(usable / np.where(seen > 0, seen, np.nan))
            caps = np.fmin(caps, fits)
        return np.maximum(least, caps).astype(np.int64)

    def learn(self, replies: Sequence[Reply]) -> None:
        """Update F for assigned pairs, decay the others, and count usage."""
        rate = self.settings.assignment.fitness_rate
        stale = np.ones(self.fitness.shape, dtype=np.bool_)
        used = np.zeros(self.spec.num_units)
        for reply in replies:
            client, experts = reply.client, reply.experts
            update_fitness(self.fitness, client, experts, self._score(reply), rate)
            stale[client, experts] = False
            used[experts] += reply.samples
            self._time(reply)
        self.fitness[stale] *= 1 - self.options.stale_decay
        kept = self.options.usage_decay * self.attention
        self.attention = kept + self._contribution(used)

    def _score(self, reply: Reply) -> NDArray[np.float64]:
        """Return r = w exp(-l) + (1 - w) u(c,e) / sum_e u(c,e), shape (k,)."""
        w = self.options.loss_share
        # An expert that saw no sample has no loss; exp(-0) would flatter it.
        loss = np.where(reply.samples > 0, loss_score(reply.report.expert_loss), 0)
        share = layer_shares(reply.samples, self.spec.layers[reply.experts])
        return w * loss + (1 - w) * share

    def _time(self, reply: Reply) -> None:
        """Add to the running mean of what an expert takes this client."""
        # No clock tells a nanosecond; as a divisor it would be none at all.
        seconds = max(reply.report.seconds_train, 1e-9) / len(reply.experts)
        before = self.seconds_per_expert[reply.client]
        newest = seconds if before == 0 else 0.7 * before + 0.3 * seconds
        self.seconds_per_expert[reply.client] = newest

    def _contribution(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.options.contribution == "samples":
            return samples
        first = [self.spec.flops(expert_part(e)) for e in self.spec.one_of_each]
        # Operations are those of a sample, usage counts what it is routed as.
        each = np.repeat(first, self.spec.num_experts) / self.spec.positions
        return samples * each


def layer_shares(
    samples: NDArray[np.int64], layers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return each expert's share of what was routed in its layer, 0 where nothing was.

    Parameters
    ----------
    samples, layers : ndarray of int, shape (k,)
        Of some experts.
    """
    totals = np.bincount(layers, weights=samples)
    return samples / np.maximum(1, totals)[layers]
