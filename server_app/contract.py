"""What strategy and round loop agree on: views, plans, replies, and the verbs.

Neither knows the other. An algorithm turns these values into one another
(``server_app.strategies``); ``server_app.rounds`` carries them to the clients and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from common.errors import SettingsError, nearest
from common.local_method import LocalMethod
from common.moe import ModelSpec, Vector
from common.settings import Settings, explain
from common.settings.section import Section
from common.wire import QueryReply, TrainOrder, TrainReport
from server_app.assignment import Assignment, ExpertLayers
from server_app.merging.bounds import NormBounds
from server_app.merging.means import PartMeans, ServerAverage


@dataclass(frozen=True, kw_only=True)
class View:
    """What a strategy sees when it plans a round of P participants.

    Attributes
    ----------
    server_round : int
        From 1.
    clients : ndarray of int, shape (P,)
        Rows of the participants in matrices over all known clients, ascending.
    num_clients : int
        Clients known so far, C.
    budgets : ndarray of int, shape (P,)
        Experts each participant can hold: k_c, or L * k_c if there are L layers.
    layers : ExpertLayers
        Layers of the experts. A plan gives whoever holds anything an expert of every
        layer.
    previous : ndarray of bool, shape (P, E)
        What each participant was last assigned.
    at_work : ndarray of bool, shape (B, E)
        What is held by each client that has not answered an order of before yet; none
        of them is a participant.
    profiles : tuple of QueryReply, length P
        What each participant last said about itself.
    fleet : tuple of QueryReply, length C
        What every known client last said, by row.
    rng : Generator
        Random stream of this round; the same after a resume.
    """

    server_round: int
    clients: NDArray[np.int64]
    num_clients: int
    budgets: NDArray[np.int64]
    layers: ExpertLayers
    previous: NDArray[np.bool_]
    at_work: NDArray[np.bool_]
    profiles: tuple[QueryReply, ...]
    fleet: tuple[QueryReply, ...]
    rng: np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who holds what in one round.

    Attributes
    ----------
    assignment : ndarray of bool, shape (P, E)
        Rows follow ``View.clients``.
    solution : Assignment or None
        What the solver said, for the log.
    order : mapping of str to object
        Fields of :class:`common.wire.TrainOrder` that differ from the defaults.
    client_order : mapping of int to mapping of str to object
        The same for single clients, by row.
    content : mapping of int to mapping of str to vector
        Parts for clients (by row) that get others than the global model's.
    notes : tuple of str
        What the run log should tell about this plan, e.g. a bound that was relaxed.
    """

    assignment: NDArray[np.bool_]
    solution: Assignment | None = None
    order: Mapping[str, Any] = field(default_factory=dict)
    client_order: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    content: Mapping[int, Mapping[str, Vector]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One accepted reply; checked against its order before a strategy sees it.

    Attributes
    ----------
    client : int
        Row of the client.
    deltas : mapping of str to vector
        What changed, part by part; empty in ``learn``, where it is merged already.
    """

    client: int
    order: TrainOrder
    report: TrainReport
    deltas: Mapping[str, Vector] = field(default_factory=dict)

    @property
    def experts(self) -> NDArray[np.int64]:
        """Global ids of the experts the client held, shape (k,)."""
        return np.array(self.order.experts, dtype=np.int64)

    @property
    def samples(self) -> NDArray[np.int64]:
        """u_{c,e} for each of ``experts``, shape (k,)."""
        return np.array(self.report.expert_samples, dtype=np.int64)

    def samples_of(self, expert: int) -> int:
        """u_{c,e} of one expert the client held."""
        return self.report.expert_samples[self.order.experts.index(expert)]


class StrategyOptions(Section):
    """Options of one algorithm, read from ``strategy-options``; none by default."""


def read_options(
    kind: type[StrategyOptions], given: Mapping[str, Any], strategy: str
) -> StrategyOptions:
    """Return the options of a strategy, of this name, as they were given.

    Raises
    ------
    SettingsError
        If one is wrong.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        valid = [name.replace("_", "-") for name in kind.model_fields]
        wrong = str(error.errors()[0]["loc"][-1]) if error.errors()[0]["loc"] else ""
        raise SettingsError(
            f"strategy-options of {strategy}: {explain(error)} (options: "
            f"{', '.join(valid) or 'none'}"
            f"{'' if wrong in valid else nearest(wrong, valid)})"
        ) from None


class Algorithm(Protocol):
    """What the round loop needs of a strategy; see :class:`ExpertStrategy`."""

    name: ClassVar[str]
    private: ClassVar[str]
    no_predictor: ClassVar[str]
    settings: Settings
    spec: ModelSpec
    max_budget: int
    widths: tuple[float, ...]
    projections: int
    model: dict[str, Vector]
    usage: NDArray[np.float64]
    private_parts: list[str]
    method: LocalMethod
    sums: PartMeans
    average: ServerAverage
    bounds: NormBounds

    @property
    def gate(self) -> Literal["private", "shared", "none"]:
        """Where the gate lives."""

    def sample(
        self, online: NDArray[np.int64], wanted: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Choose who takes part when not all do."""

    def plan(self, view: View) -> Plan:
        """Decide who holds what in this round."""

    def parts_for(self, experts: Iterable[int]) -> list[str]:
        """Name the parts sent to a client that holds ``experts``."""

    def merge(self, reply: Reply) -> None:
        """Fold one reply into the running sums."""

    def finish(self) -> None:
        """Apply the sums to the global model."""

    def discard(self) -> None:
        """Drop the sums."""

    def learn(self, replies: Sequence[Reply]) -> None:
        """Remember what the round taught."""

    def global_model(self) -> nn.Module | None:
        """Return the server's own predictor; None where it has none."""

    def serves(self, client: int) -> int:
        """Return which of the server's models a client, by row, would be handed."""

    def served_model(self, which: int) -> nn.Module | None:
        """Return one of these models."""

    def not_private(self) -> str:
        """Return why it cannot be trained with noise in its sums; "" if it can."""

    def published(self) -> dict[str, Vector]:
        """Return the parts that are measured and saved."""

    def arrays(self) -> ArrayRecord:
        """Return the global model as Flower's arrays."""

    def fitness_matrix(self) -> NDArray[np.float64] | None:
        """Return the fitness after a round, if there is one."""

    def state(self) -> dict[str, Any]:
        """Return the memory of the strategy."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""

    def summary(self) -> None:
        """Log what will run."""


def flaw(vector: object, size: int) -> str:
    """Return why something is no vector of a part of ``size`` values; "" if it is.

    Strategies are others' as well.
    """
    if not isinstance(vector, np.ndarray):
        return f"is {type(vector).__name__}, expected float32[{size}]"
    if vector.dtype != np.float32 or vector.shape != (size,):
        shape = ", ".join(map(str, vector.shape))
        return f"is {vector.dtype}[{shape}], expected float32[{size}]"
    return ""


def broken(strategy: Algorithm, before: Mapping[str, Vector]) -> str:
    """Return what a strategy has made of its model that no client can train.

    ``""`` if nothing; ``before`` is the model before. What replies brought was checked.
    """
    if others := sorted(strategy.model.keys() ^ before.keys()):
        return f"added or dropped parts of its model: {others[:3]}"
    for part, vector in before.items():
        if wrong := flaw(strategy.model[part], vector.size):
            return f"part {part} of its model {wrong}"
    usage = np.asarray(strategy.usage)
    if usage.shape != (strategy.spec.num_units,) or not (
        np.isfinite(usage).all() and (usage >= 0).all()
    ):
        return (
            f"its usage is {usage.tolist()!r:.100}, expected "
            f"{strategy.spec.num_units} numbers from 0 on"
        )
    # Infinity a strategy may mean in a part of its own: Fed-MoE's alpha without a main
    # expert. Clients refuse it.
    sent = set(strategy.spec.part_names())
    parts = [
        part
        for part, v in strategy.model.items()
        if np.isnan(v).any() or (part in sent and np.isinf(v).any())
    ]
    if not parts:
        return ""
    return (
        f"made NaN or infinity of {', '.join(parts[:3])}"
        f"{' and others' if parts[3:] else ''}; its training on the server may diverge "
        "at this learning rate"
    )
