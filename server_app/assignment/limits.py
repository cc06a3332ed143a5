"""What a solver is given besides the problem, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLOCK", "SolverAnswer", "WorkLimits"]

#: CP-SAT's deterministic seconds per second of the limit: measured at 0.1 to 0.8,
#: the less the busier the cores.
_WORK = 0.25
#: The clock cuts in only at this multiple of the limit, so that even on a busy machine
#: it is the counted work that ends a run, and the answer repeats.
_GUARD = 4.0
_LEAST = 0.05
#: Said of an answer that the wall clock, not the counted work, ended.
CLOCK = "ended by the clock, so it may not repeat exactly"


@dataclass(frozen=True, kw_only=True)
class WorkLimits:
    """How much a solver may work, and its seed.

    Parameters
    ----------
    seconds : float
        Nominal seconds of work.
    guard : float
        Seconds left on the wall clock before a run is cut off regardless.
    seed : int
        Seed of the solver's own randomness.
    """

    seconds: float
    guard: float
    seed: int

    @classmethod
    def of(cls, seconds: float, seed: int) -> WorkLimits:
        """Return limits of so many seconds of work."""
        return cls(seconds=seconds, guard=_GUARD * seconds, seed=seed % 2**31)

    @property
    def deterministic(self) -> float:
        """CP-SAT's deterministic time: ends a run at the same point everywhere."""
        return _WORK * self.seconds

    def after(self, used: float) -> WorkLimits:
        """Return what is left when the clock has advanced; work is not affected."""
        return replace(self, guard=max(self.guard - used, _LEAST))


@dataclass(frozen=True, kw_only=True, eq=False)
class SolverAnswer:
    """A solver's answer, in the integers of the problem.

    Parameters
    ----------
    matrix : ndarray of bool, shape (C, E)
        Who holds what.
    bound : int or None
        Upper bound on the integer objective; None when the solver has none.
    proved : bool
        Whether the solver itself claims optimality.
    certified : bool
        Whether prices prove it optimal, independently of the solver.
    note : str
        What the caller should know, e.g. how many arcs it took.
    """

    matrix: NDArray[np.bool_]
    bound: int | None
    proved: bool
    certified: bool = False
    note: str = ""
