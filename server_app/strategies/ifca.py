"""IFCA (Ghosh et al., NeurIPS 2020): clusters of clients, a dense model for each.

docs/methods.md, 4; every round, with m models w_0 ... w_(m-1)::

    every participant c is sent all m models
    j_c <- argmin_j F_c(w_j)                     the loss on its own training samples
    client c trains w_(j_c)
    w_j <- w_j + sum_c n_c delta w_c / sum_c n_c over the c with j_c = j

That is model averaging (Algorithm 1, option II). It sends m models to a client and
gets one back. ``shared = true`` is the paper's weight sharing: one extractor for all,
and m heads.

From equal or random models one cluster soon takes everybody. So the first ``warmup``
rounds are FedAvg's, and then each model but the first starts from its model and a tenth
of each tensor's standard deviation in noise [C].
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.local_method import LocalMethod
from common.moe import ModelSpec, Vector, unflatten
from common.moe.ensemble import UsageMixture
from common.parts import EXTRACTOR, model_of_part, part_of_model
from common.seeding import stream
from common.settings import Settings
from server_app.strategies.base import Plan, Reply, StrategyOptions, View
from server_app.strategies.dense import FedAvg

NOISE = 0.1
"""Of a tensor's standard deviation; what tells the models apart when they split."""
UNKNOWN = -1


class IFCA(FedAvg):
    """Clients choose the model that fits them, and models average who chose them.

    Attributes
    ----------
    cluster : ndarray of int, shape (C,)
        Which model each client chose last; -1 for one that has not chosen.
    """

    name = "ifca"
    ships = "the dense models of all clusters"
    source = "IFCA, Ghosh et al., NeurIPS 2020"
    use_when = "devices fall into a few groups and may not send class means"
    cost = (
        "all models of the clusters down, one up: with four, 4 times fedavg's "
        "download and 2.1 times its memory"
    )
    remembers: ClassVar[tuple[str, ...]] = ("cluster",)

    class Options(StrategyOptions):
        """IFCA's own settings."""

        clusters: int = Field(4, ge=1, le=64, description="m, models, 1 to 64")
        warmup: int = Field(5, ge=0, description="rounds of FedAvg before the split")
        shared: bool = Field(
            False, description="whether all clusters share one extractor"
        )

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.cluster: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def local_method(self) -> LocalMethod:
        """Try all m models; what a device must have memory for, also before the split.

        With ``shared`` it is less by m - 1 extractors.
        """
        return LocalMethod(candidates=self.options.clusters)

    @property
    def is_split(self) -> bool:
        """Whether there is more than the one model of the warm-up."""
        return any(model_of_part(part)[0] for part in self.model)

    def plan(self, view: View) -> Plan:
        """Send all models to every participant."""
        joined = view.num_clients - len(self.cluster)
        unknown = np.full(max(0, joined), UNKNOWN)
        self.cluster = np.concatenate([self.cluster, unknown])
        if view.server_round > self.options.warmup and not self.is_split:
            self._split()
        count = self.options.clusters if self.is_split else 1
        return Plan(assignment=np.ones_like(view.previous), order={"candidates": count})

    def _split(self) -> None:
        """Make m models of the one."""
        model = dict(self.model)
        for number in range(1, self.options.clusters):
            for part, vector in model.items():
                if self._is_own(part):
                    rng = stream(self.settings.run.seed, "cluster", number, part)
                    named = part_of_model(part, number)
                    self.model[named] = self._near(part, vector, rng)

    def _near(self, part: str, vector: Vector, rng: np.random.Generator) -> Vector:
        tensors = unflatten(vector, self.layout(part)).values()
        return np.concatenate(
            [
                (t + NOISE * t.std() * rng.standard_normal(t.shape)).ravel()
                for t in tensors
            ]
        ).astype(np.float32)

    def _is_own(self, part: str) -> bool:
        return part != EXTRACTOR or not self.options.shared

    def parts_for(self, experts: Iterable[int]) -> list[str]:
        """Name the parts of all models."""
        return list(self.model)

    def merge(self, reply: Reply) -> None:
        """Add n_c delta w_c to the sums of the model the client chose."""
        for part, delta in reply.deltas.items():
            number = reply.report.candidate if self._is_own(part) else 0
            named = part_of_model(part, number)
            self.sums.add(named, delta, weight=reply.report.num_examples)

    def learn(self, replies: Sequence[Reply]) -> None:
        """Remember who chose which model."""
        if self.is_split:
            for reply in replies:
                self.cluster[reply.client] = reply.report.candidate

    def serves(self, client: int) -> int:
        """Return the model the client chose last."""
        return max(0, int(self.cluster[client]))

    def served_model(self, which: int) -> UsageMixture:
        """Return the predictor of one cluster."""
        published = self.published()
        model = self.spec.build(range(self.spec.num_units))
        model.load(
            {
                part: published.get(part_of_model(part, which), published[part])
                for part in model.parts()
                if part in published
            }
        )
        return UsageMixture(model, self.usage)

    def global_model(self) -> UsageMixture:
        """Return the predictor of the cluster that most clients chose."""
        chosen = self.cluster[self.cluster != UNKNOWN]
        return self.served_model(int(np.bincount(chosen, minlength=1).argmax()))
