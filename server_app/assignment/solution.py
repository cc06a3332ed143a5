"""The answer to an assignment problem, and the explanation when bounds conflict.

Only types live here: no solver, no feasibility logic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Assignment", "Infeasibility", "Status"]

#: ``optimal``: proved best (of the relaxed problem when bounds conflict).
#: ``feasible``: valid, stopped by a limit or by a heuristic before a proof.
Status = Literal["optimal", "feasible"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Infeasibility:
    """Why no assignment satisfies every bound, and what would.

    Parameters
    ----------
    conflicts : tuple of str
        Which bounds conflict, one sentence each, naming experts and clients.
    short : ndarray of float, shape (E,)
        How much ``lower`` would have to come down, in units of load.
    over : ndarray of float, shape (E,)
        How much ``upper`` would have to go up, in units of load.
    """

    conflicts: tuple[str, ...]
    short: NDArray[np.float64]
    over: NDArray[np.float64]

    def __str__(self) -> str:
        return "; ".join(self.conflicts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """Who holds what, how good it is, and how we know.

    Parameters
    ----------
    matrix : ndarray of bool, shape (C, E)
        True where client c holds expert e.
    objective : float
        Fitness minus switching cost minus load penalty, on coefficients rounded to
        about 1e-9 of the largest one, so that it is the same number whichever solver
        found it. Relaxed bounds cost nothing here; they are in ``relaxed``.
    bound : float
        No assignment of the problem solved (after relaxation) has a higher objective.
    status : {"optimal", "feasible"}
        See `Status`.
    certified : bool
        True when optimality was verified apart from the solver: prices for the experts
        exist at which no client would change anything.
    solver : str
        What produced the matrix: "flow", "cp-sat", "highs", "greedy" ...
    seconds : float
        Wall time of the whole call.
    relaxed : tuple of str
        Every bound that was not met and by how much; empty when all were.
    reason : str
        Why this solver was chosen.
    infeasibility : Infeasibility or None
        The explanation behind ``relaxed``.
    """

    matrix: NDArray[np.bool_]
    objective: float
    bound: float
    status: Status
    certified: bool
    solver: str
    seconds: float
    relaxed: tuple[str, ...] = ()
    reason: str = ""
    infeasibility: Infeasibility | None = None

    @property
    def gap(self) -> float:
        """Relative distance to the bound: (bound - objective) / |objective|."""
        distance = self.bound - self.objective
        if distance <= 0.0:
            return 0.0
        return distance / max(abs(self.objective), 1e-12)
