"""What a strategy is: four verbs over arrays.

``plan`` decides who holds what, ``merge`` folds one reply into the running sums,
``learn`` remembers what the round taught, ``state``/``load_state`` make that memory a
value. Polling, bytes, deadlines, logging and checkpoints are not the algorithm and are
not here (``server_app.rounds.loop``), nor is what makes it a strategy of Flower's
(``flower_interface``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.errors import SettingsError
from common.local_method import LocalMethod
from common.moe import GATE, Layout, ModelSpec, MoEModel, Vector, expert_id
from common.moe.ensemble import UsageMixture
from common.settings import Settings
from server_app.contract import Plan, Reply, StrategyOptions, View, read_options
from server_app.merging.bounds import NormBounds
from server_app.merging.means import PartMeans, ServerAverage
from server_app.merging.new_sums import new_sums
from server_app.strategies.flower_interface import FlowerInterface

Merge = TypeVar("Merge", bound=Callable[..., None])


def weighted_sums(merge: Merge) -> Merge:
    """Mark a ``merge`` that adds every delta to its part's sum, and does no more.

    With ``privacy`` all weights are 1: then nothing else may hang on a reply.
    """
    merge.sums_alone = True  # type: ignore[attr-defined]
    return merge


class ExpertStrategy(FlowerInterface):
    """Base of every strategy: shared extractor, assigned experts, private gate.

    Parameters
    ----------
    settings : Settings
    spec : ModelSpec
        Shape of the full mixture; a dense strategy keeps one expert of it.

    Attributes
    ----------
    name, ships, private, source, use_when, cost : str
        What ``expertfleet strategies`` says of it: the last two are when it is the
        right one, and what a client pays in a round.
    adds_up : bool
        Whether all that is kept of a reply before the end of a round is in ``sums``.
        Then a reply may come in a later round than its order.
    dense : bool
        Whether the global model is the dense one: extractor and one expert.
    gate : {"private", "shared", "none"}
        Where the gate lives; see :class:`common.wire.TrainOrder`.
    no_predictor : str
        Why the server has no predictor of its own; "" if it has one.
    remembers : tuple of str
        Names of attributes (arrays and scalars) that make up the state.
    by_part : bool
        Whether replies are merged part by part, in ``sums``.
    model : dict of str to ndarray of float32
        The global model, part by part. Replace vectors, never write into them: a
        vector may be on its way to a client.
    usage : ndarray, shape (U,)
        Samples routed to each expert, over all rounds; U = ``spec.num_units`` is E, or
        L * E with several layers.
    average : ServerAverage
        Of ``model`` over the rounds, kept by the round loop.
    bounds : NormBounds
        What replies are held against, kept by the round loop.
    private_parts : list of str
        Parts of the model that stay with the clients; the global model is without them.
    method : LocalMethod
        How clients train.
    max_budget : int
        Cap on every client's budget k_c of each layer; E unless a budget means
        something else.
    widths : tuple of float
        Share of the channels that a client with a budget of 1, 2, ... is sent; empty,
        the default, where a budget is a number of experts.
    projections : int
        Random projections of their samples of which clients are asked for class means
        (:class:`common.wire.ClassStatistic`); 0, the default, for none.
    """

    name: ClassVar[str] = ""
    ships: ClassVar[str] = "extractor, assigned experts"
    private: ClassVar[str] = "gate"
    source: ClassVar[str] = ""
    use_when: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    adds_up: ClassVar[bool] = True
    dense: ClassVar[bool] = False
    gate: ClassVar[Literal["private", "shared", "none"]] = "private"
    no_predictor: ClassVar[str] = ""
    remembers: ClassVar[tuple[str, ...]] = ()
    by_part: ClassVar[bool] = True
    Options: ClassVar[type[StrategyOptions]] = StrategyOptions

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        self.settings = settings
        self.spec = self.shape(spec)
        self.options: Any = self.parse_options(settings)
        if (least := settings.assignment.min_holders) > 1 and not self.by_part:
            raise SettingsError(
                f"min-holders = {least} is not allowed with strategy {self.name!r}: it "
                "does not merge expert by expert"
            )
        self.private_parts = self.keeps()
        self.method = self.local_method()
        self.model: dict[str, Vector] = self.spec.initial(
            settings.run.seed, self.shared_parts()
        )
        self.usage = np.zeros(self.spec.num_units)
        self.max_budget = self.spec.num_experts
        self.widths: tuple[float, ...] = ()
        self.projections = 0
        self.sums = self.new_sums()
        self.average = ServerAverage(settings.skew.server_average)
        # Of others' norms: what a client counts for must not hang on others.
        central = settings.privacy.is_central
        self.bounds = NormBounds(0.0 if central else settings.merge.norm_bound)

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return this algorithm's options; raises SettingsError if one is wrong."""
        given = settings.run.parsed_strategy_options()
        return read_options(cls.Options, given, cls.name)

    # --- what an algorithm is made of -----------------------------------------------

    @classmethod
    def shape(cls, spec: ModelSpec) -> ModelSpec:
        """Return the shape that is trained, of the one the settings ask for.

        Raises
        ------
        SettingsError
            If the algorithm has no use for such a model.
        """
        return spec.dense() if cls.dense else spec

    def keeps(self) -> list[str]:
        """Name the parts of the model, beside a private gate, that clients keep."""
        return []

    def local_method(self) -> LocalMethod:
        """Return how clients train, with its numbers: plainly, by default."""
        return LocalMethod()

    # --- the verbs an algorithm overrides -------------------------------------------

    def sample(
        self, online: NDArray[np.int64], wanted: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Choose who takes part when not all do: by chance, all alike.

        Parameters
        ----------
        online : ndarray of int
            Rows of the clients that can be reached, ascending.
        wanted : int
            How many to ask, fewer than there are.
        rng : Generator
            Random stream of this choice.

        Returns
        -------
        ndarray of int
            Rows out of ``online``, ascending.
        """
        return online[np.sort(rng.choice(len(online), size=wanted, replace=False))]

    @abstractmethod
    def plan(self, view: View) -> Plan:
        """Decide who holds what in this round."""

    def weight(self, reply: Reply, part: str) -> float:
        """Return the weight of a client's delta of one part.

        By default the extractor is weighted by the client's samples n_c and an expert
        by the samples routed to it, u_{c,e} (docs/methods.md, 1), or by n_c if
        ``expert-weighting`` says so.
        """
        expert = expert_id(part)
        by_usage = self.settings.merge.expert_weighting == "usage"
        if expert is not None and by_usage and not self.dense:
            return reply.samples_of(expert)
        return reply.report.num_examples

    @weighted_sums
    def merge(self, reply: Reply) -> None:
        """Fold one reply into the running sums, as it lands."""
        for part, delta in reply.deltas.items():
            self.sums.add(part, delta, self.weight(reply, part))

    def learn(self, replies: Sequence[Reply]) -> None:
        """Remember what a round taught; replies come in row order, without deltas."""

    def finish(self) -> None:
        """Apply the merged sums to the global model at the end of a round."""
        self.sums.apply(self.model)

    def discard(self) -> None:
        """Drop what was merged so far: the round will not be finished."""
        self.sums.clear()

    def new_sums(self) -> PartMeans:
        """Return empty sums of the merging rule the settings ask for.

        Raises
        ------
        SettingsError
            If late replies are to be merged, and what the algorithm keeps of a reply
            is not in the sums.
        """
        return new_sums(self.settings, self.name, adds_up=self.adds_up)

    def not_private(self) -> str:
        """Return why it cannot be trained with noise in its sums; "" if it can.

        Epsilon is of sums to which a client adds each delta once. Whoever merges in
        another way, or weighs by more than counts, would promise what does not hold.
        """
        mine, base = type(self), ExpertStrategy
        if not getattr(mine.merge, "sums_alone", False) or any(
            getattr(mine, verb) is not getattr(base, verb)
            for verb in ("weight", "finish", "discard", "new_sums")
        ):
            return (
                "it does more with replies than to sum them; flex-moe, random, fedavg "
                "and others that do no more can be private"
            )
        return ""

    def fitness_matrix(self) -> NDArray[np.float64] | None:
        """Return the fitness after a round, for ``fitness.rows`` and the report.

        Returns
        -------
        ndarray, shape (C, E), or None
            A row per client known when the round was planned; None, the default, from
            a strategy that keeps no fitness.
        """
        return None

    def global_model(self) -> nn.Module | None:
        """Return the server's own predictor: inputs (B, ...) to probabilities (B, C).

        None where ``no_predictor`` says why there is none.

        It is the caller's, who may move it to another device: nothing in it is what the
        strategy itself computes with.

        By default the mean of all experts' predictions weighted by how much clients
        used them (``server_global``, docs/methods.md, 1); no gate is needed.
        """
        if self.no_predictor:
            return None
        return UsageMixture(self.full_model(), self.usage)

    def serves(self, client: int) -> int:
        """Return which of the server's models a client would be handed: number 0.

        It is what the client would start from if it did not train. A strategy with
        several models, such as one a group, overrides this and :meth:`served_model`.

        Parameters
        ----------
        client : int
            Row of a client known when the last round was planned.
        """
        return 0

    def served_model(self, which: int) -> nn.Module | None:
        """Return the model of this number, as :meth:`global_model` does: that one."""
        return self.global_model()

    def published(self) -> dict[str, Vector]:
        """Return the parts that are measured and saved.

        The average over the rounds with ``server-average``, else the newest model.
        """
        return self.average.parts or self.model

    def full_model(self) -> MoEModel:
        """Return what is published as a module that holds every expert."""
        model = self.spec.build(range(self.spec.num_units))
        model.load({k: v for k, v in self.published().items() if k in model.parts()})
        return model

    # --- what follows from the class attributes -------------------------------------

    def shared_parts(self) -> list[str]:
        """Names of the parts of the global model; nothing private is among them."""
        private = {*self.private_parts, *([] if self.gate == "shared" else [GATE])}
        return [name for name in self.spec.part_names() if name not in private]

    def layout(self, part: str) -> Layout:
        """Return name and shape of the tensors in one part of the global model."""
        return self.spec.layout(part)

    def parts_for(self, experts: Iterable[int]) -> list[str]:
        """Names of the parts shipped to a client that holds ``experts``."""
        held = set(experts)
        return [
            name
            for name in self.shared_parts()
            if (expert := expert_id(name)) is None or expert in held
        ]

    def state(self) -> dict[str, Any]:
        """Return everything the strategy remembers beside the model."""
        return {name: getattr(self, name) for name in ("usage", *self.remembers)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        for name in ("usage", *self.remembers):
            setattr(self, name, state[name])


__all__ = [
    "ExpertStrategy",
    "Plan",
    "Reply",
    "StrategyOptions",
    "View",
    "weighted_sums",
]
