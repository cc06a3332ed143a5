"""What a strategy is given and what it answers: views, plans, replies, options.

Values only. The verbs that turn one into the other are in ``base``; who carries them to
the clients and back is ``server_app.rounds``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.moe import Vector
from common.sections import Section
from common.wire import QueryReply, TrainOrder, TrainReport
from server_app.assignment import Assignment, Units


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
        What each participant can hold: k_c experts, k_c of every layer if there are
        several (in ``units.sizes``).
    units : Units
        Layers of the experts, and what each takes of a budget. A plan gives whoever
        holds anything an expert of every layer.
    previous : ndarray of bool, shape (P, E)
        What each participant was last assigned.
    availability : ndarray, shape (P,)
        Chance that each participant will answer, from how it did before.
    profiles : tuple of QueryReply, length P
        What each participant last said about itself.
    rng : Generator
        Random stream of this round; the same after a resume.
    """

    server_round: int
    clients: NDArray[np.int64]
    num_clients: int
    budgets: NDArray[np.int64]
    units: Units
    previous: NDArray[np.bool_]
    availability: NDArray[np.float64]
    profiles: tuple[QueryReply, ...]
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
