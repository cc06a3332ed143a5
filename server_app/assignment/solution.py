"""The answer to an assignment problem: a type, no logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Assignment", "Status"]

#: ``optimal``: proved best (of the relaxed problem when bounds conflict).
#: ``feasible``: valid, stopped by a limit or by a heuristic before a proof.
Status = Literal["optimal", "feasible"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """Who holds what, how good it is, and how we know.

    Parameters
    ----------
    matrix : ndarray of bool, shape (C, E)
        True where client c holds expert e.
    objective : float
        Summed fitness, on coefficients rounded to about 1e-9 of the largest one, so
        that it is the same number whichever solver found it. Relaxed bounds cost
        nothing here; they are in ``relaxed``.
    precision : float
        What that rounding can hide, in fitness: in the numbers as given, no assignment
        of the problem solved is better than ``bound`` by more than this, nor is this
        one worth less than ``objective`` by more.
    bound : float
        No assignment of the problem solved (after relaxation) has a higher objective.
    status : {"optimal", "feasible"}
        See `Status`; optimal to within ``precision``.
    certified : bool
        True when optimality was verified apart from the solver: prices for the experts
        exist at which no client would change anything, to within ``precision``.
    solver : str
        What produced the matrix: "flow", "cp-sat" or "highs".
    seconds : float
        Wall time of the whole call.
    relaxed : tuple of str
        Every bound that was not met and by how much; empty when all were.
    reason : str
        Why this solver was chosen, and what it says of its work.
    """

    matrix: NDArray[np.bool_]
    objective: float
    bound: float
    precision: float
    status: Status
    certified: bool
    solver: str
    seconds: float
    relaxed: tuple[str, ...] = ()
    reason: str = ""

    @property
    def gap(self) -> float:
        """Relative distance to the bound: (bound - objective) / |objective|."""
        distance = self.bound - self.objective
        if distance <= 0.0:
            return 0.0
        return distance / max(abs(self.objective), 1e-12)
