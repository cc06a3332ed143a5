"""The assignment problem, typed and checked: which client holds which expert.

FLEX-MoE's (arXiv 2512.23070; docs/methods.md, section 1), with x the (C, E) matrix
sought::

    maximise    sum_ce Q_ce x_ce                        fitness
    subject to  sum_e size_e x_ce        <= capacity_c  a ceiling, not a quota
                lower_e <= load_e        <= upper_e     load_e = sum_c weight_c x_ce
                sum_{e in group g} x_ce  >= 1           every group, every client
                x = 0 where forbidden

Capacity is a ceiling: a client is filled as far as bounds allow because fitness is not
negative, and left unfilled where a placement would lower the objective. What else a
placement gains or costs, such as a download, belongs into the fitness.

Here lives what is asked. How it is solved, and what happens when it cannot be
satisfied, is in the neighbouring modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server_app.assignment import validation as check

__all__ = ["AssignmentProblem"]


@dataclass(frozen=True, init=False, eq=False)
class AssignmentProblem:
    """One round's assignment problem of C clients and E experts.

    Every argument is array-like and stored as a read-only array.
    ``dataclasses.replace`` works on it, e.g. to widen bounds.

    Parameters
    ----------
    fitness : array-like of float, shape (C, E)
        Q, the gain of placing expert e on client c, dimensionless, finite. No number
        means "never": say so in ``forbidden``, where Q is not looked at.
    capacity : array-like of int, shape (C,)
        Budget of each client: experts, or bytes when ``sizes`` is given.
    lower, upper : array-like of float, shape (E,), or a scalar
        Band of each expert's load: holders, or summed ``load_weights`` when given.
        Counted loads read them as ceil(lower) and floor(upper).
    sizes : array-like of int, shape (E,), optional
        Bytes of each expert, positive. Equal sizes become a count budget.
    load_weights : array-like of float, shape (C,), optional
        Load that a client adds to each expert it holds, e.g. its samples n_c, >= 0.
    forbidden : (C, E) mask or (client, expert) pairs, optional
        Pairs that must not be in the answer.
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
    forbidden: NDArray[np.bool_] | None
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
        forbidden: ArrayLike | Iterable[tuple[int, int]] | None = None,
        groups: ArrayLike | None = None,
    ) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        matrix = check.finite_matrix("fitness", fitness)
        clients, experts = matrix.shape
        keep("fitness", matrix)
        keep("capacity", check.whole_vector("capacity", capacity, "client", clients))
        keep("lower", check.finite_vector("lower", lower, "expert", experts))
        keep("upper", check.finite_vector("upper", upper, "expert", experts, minimum=0))
        crossed = self.lower > self.upper
        if crossed.any():
            expert = int(np.argmax(crossed))
            raise check.ProblemError(
                f"lower of expert {expert} is {self.lower[expert]:g}, above its "
                f"upper {self.upper[expert]:g}"
            )
        if sizes is not None:
            sizes = check.whole_vector("sizes", sizes, "expert", experts, minimum=1)
        keep("sizes", sizes)
        if load_weights is not None:
            load_weights = check.finite_vector(
                "load_weights", load_weights, "client", clients, minimum=0
            )
        keep("load_weights", load_weights)
        keep("forbidden", check.pair_mask("forbidden", forbidden, matrix.shape))
        if groups is not None:
            groups = check.whole_vector("groups", groups, "expert", experts)
        keep("groups", groups)
