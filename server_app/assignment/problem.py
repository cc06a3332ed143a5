"""The assignment problem, typed and checked: which client holds which expert.

METHODS.md section 1 (FLEX-MoE, arXiv 2512.23070), with x the (C, E) matrix sought::

    maximise    sum_ce Q_ce x_ce                        fitness
              - sum_ce s_e x_ce (1 - previous_ce)       newly shipped experts
              - penalty(load)                           see `load_penalty`
    subject to  sum_e size_e x_ce        <= capacity_c  a ceiling, not a quota
                lower_e <= load_e        <= upper_e     load_e = sum_c weight_c x_ce
                sum_c x_ce               >= min_holders_e
                sum_e x_ce               >= floor_c     participation
                sum_{e in group g} x_ce  >= 1           every group, every client
                sum_{e in set} x_ce      <= 1           every exclusive set
                x = 0 where forbidden, x = 1 where pinned

Capacity is a ceiling: a client is filled as far as bounds allow because fitness is not
negative, and left unfilled where a placement would lower the objective (negative
fitness, a switching cost above the fitness). To force filling, set ``floor=capacity``.

Here lives the statement of the problem. How it is solved, and what happens when it
cannot be satisfied, is in the neighbouring modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server_app.assignment import validation as check

__all__ = ["AssignmentProblem"]

Pairs = ArrayLike | Iterable[tuple[int, int]] | None


@dataclass(frozen=True, init=False, eq=False)
class AssignmentProblem:
    """One round's assignment problem of C clients and E experts.

    Every argument is array-like and stored as a read-only array.
    ``dataclasses.replace`` works on it, e.g. to widen bounds.

    Parameters
    ----------
    fitness : array-like of float, shape (C, E)
        Q, the gain of placing expert e on client c, dimensionless, finite.
    capacity : array-like of int, shape (C,)
        Budget of each client: experts, or bytes when ``sizes`` is given.
    lower, upper : array-like of float, shape (E,), or a scalar
        Band of each expert's load: holders, or summed ``load_weights`` when given.
        Counted loads read them as ceil(lower) and floor(upper).
    sizes : array-like of int, shape (E,), optional
        Bytes of each expert, positive. Equal sizes become a count budget.
    load_weights : array-like of float, shape (C,), optional
        Load that a client adds to each expert it holds, e.g. its samples n_c, >= 0.
    previous : (C, E) mask or (client, expert) pairs, optional
        Last round's assignment: what a client need not download again. Without it
        nothing counts as newly shipped and ``switching_cost`` has no effect.
    switching_cost : float or array-like of float, shape (E,)
        Fitness given up per newly shipped expert, >= 0.
    load_penalty : float
        Weight of the convex penalty, in fitness per squared unit of load, >= 0.
        Counted loads: ``load_penalty * sum_e (load_e - target_e)**2``. Weighted loads
        count the deviation in whole mean client weights, rounded up:
        ``load_penalty * sum_e ceil(|load_e - target_e| / mean(load_weights))**2``.
    target : array-like of float, shape (E,), optional
        Load at which the penalty is zero; default the middle of the band.
    forbidden, pinned : (C, E) mask or (client, expert) pairs, optional
        Pairs that must not, or must, be in the answer. A forbidden pair stays out
        even when pinned; a pin that does not fit is dropped and reported.
    exclusive : sequence of sequences of int
        Sets of experts of which a client may hold at most one.
    floor : int, array-like of int of shape (C,), or "max-min", optional
        Fewest experts a client must hold. ``"max-min"`` raises the smallest number of
        experts held by any client (or what fits on it, if less) as far as the
        constraints allow, before fitness is looked at.
    min_holders : array-like of int, shape (E,), or int, optional
        Fewest clients holding each expert: for weighted loads, where ``lower`` counts
        something else.
    groups : array-like of int, shape (E,), optional
        Label of each expert, e.g. its layer; a client must hold one of every label.

    Raises
    ------
    ValueError
        If an argument has the wrong shape, a value out of range, or lower > upper; the
        message names the client or the expert. Being infeasible is no error.
    """

    fitness: NDArray[np.float64]
    capacity: NDArray[np.int64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    sizes: NDArray[np.int64] | None
    load_weights: NDArray[np.float64] | None
    previous: NDArray[np.bool_] | None
    switching_cost: NDArray[np.float64]
    load_penalty: float
    target: NDArray[np.float64]
    forbidden: NDArray[np.bool_] | None
    pinned: NDArray[np.bool_] | None
    exclusive: tuple[tuple[int, ...], ...]
    floor: NDArray[np.int64] | Literal["max-min"] | None
    min_holders: NDArray[np.int64] | None
    groups: NDArray[np.int64] | None

    def __init__(
        self,
        fitness: ArrayLike,
        capacity: ArrayLike,
        lower: ArrayLike,
        upper: ArrayLike,
        *,
        sizes: ArrayLike | None = None,
        load_weights: ArrayLike | None = None,
        previous: Pairs = None,
        switching_cost: ArrayLike = 0.0,
        load_penalty: float = 0.0,
        target: ArrayLike | None = None,
        forbidden: Pairs = None,
        pinned: Pairs = None,
        exclusive: Sequence[Sequence[int]] = (),
        floor: ArrayLike | Literal["max-min"] | None = None,
        min_holders: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        keep("fitness", check.finite_matrix("fitness", fitness))
        shape = clients, experts = self.fitness.shape
        keep(
            "capacity",
            check.whole_vector("capacity", capacity, axis="client", size=clients),
        )
        keep("lower", check.finite_vector("lower", lower, axis="expert", size=experts))
        keep(
            "upper",
            check.finite_vector("upper", upper, minimum=0, axis="expert", size=experts),
        )
        crossed = self.lower > self.upper
        if crossed.any():
            expert = int(np.argmax(crossed))
            raise ValueError(
                f"lower of expert {expert} is {self.lower[expert]:g}, above its "
                f"upper {self.upper[expert]:g}"
            )
        keep("sizes", None)
        if sizes is not None:
            whole = check.whole_vector(
                "sizes", sizes, minimum=1, axis="expert", size=experts
            )
            keep("sizes", whole)
        keep("load_weights", None)
        if load_weights is not None:
            weights = check.finite_vector(
                "load_weights", load_weights, minimum=0, axis="client", size=clients
            )
            keep("load_weights", weights)
        keep("previous", check.pair_mask("previous", previous, shape))
        cost = check.finite_vector(
            "switching_cost", switching_cost, minimum=0, axis="expert", size=experts
        )
        keep("switching_cost", cost)
        if not (np.isfinite(load_penalty) and load_penalty >= 0):
            raise ValueError(f"load_penalty is {load_penalty}: expected >= 0")
        keep("load_penalty", float(load_penalty))
        middle = (self.lower + self.upper) / 2 if target is None else target
        keep(
            "target", check.finite_vector("target", middle, axis="expert", size=experts)
        )
        keep("forbidden", check.pair_mask("forbidden", forbidden, shape))
        keep("pinned", check.pair_mask("pinned", pinned, shape))
        keep("exclusive", check.expert_sets("exclusive", exclusive, experts))
        keep("floor", _floor(floor, clients))
        keep("min_holders", None)
        if min_holders is not None:
            holders = check.whole_vector(
                "min_holders", min_holders, axis="expert", size=experts
            )
            keep("min_holders", holders)
        keep("groups", None)
        if groups is not None:
            keep(
                "groups",
                check.whole_vector("groups", groups, axis="expert", size=experts),
            )

    @property
    def num_clients(self) -> int:
        """Number of clients C."""
        return int(self.fitness.shape[0])

    @property
    def num_experts(self) -> int:
        """Number of experts E."""
        return int(self.fitness.shape[1])

    def load(self, matrix: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the load of each expert under ``matrix``.

        Parameters
        ----------
        matrix : ndarray of bool, shape (C, E)
            Who holds what.

        Returns
        -------
        ndarray of float, shape (E,)
            Holders, or summed ``load_weights``.
        """
        if self.load_weights is None:
            return matrix.sum(axis=0).astype(np.float64)
        load: NDArray[np.float64] = self.load_weights @ matrix.astype(np.float64)
        return load


def _floor(
    floor: ArrayLike | Literal["max-min"] | None, clients: int
) -> NDArray[np.int64] | Literal["max-min"] | None:
    if floor is None:
        return None
    if isinstance(floor, str):
        if floor != "max-min":
            raise ValueError(f'floor is {floor!r}: expected integers or "max-min"')
        return "max-min"
    return check.whole_vector("floor", floor, axis="client", size=clients)
