"""What a solver is given besides the instance, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLOCK", "Answer", "Limits"]

#: CP-SAT's deterministic seconds per second of the limit: measured at 0.13 to 0.8 on
#: busy cores, so that work ends nearly every run before the clock does.
_WORK = 0.25
_LEAST = 0.05
#: Said of an answer that the wall clock, not the counted work, ended.
CLOCK = "ended by the clock, so it may not repeat exactly"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a solver may work, and its seed.

    Parameters
    ----------
    seconds : float
        Time left on the wall clock: a guard for solvers that count their work.
    seed : int
        Seed of the solver's own randomness.
    work : float
        Deterministic time for CP-SAT: ends a run at the same point everywhere.
    """

    seconds: float
    seed: int
    work: float

    @classmethod
    def of(cls, seconds: float, seed: int) -> Limits:
        """Return limits with the work that normally fits into the time."""
        return cls(seconds=seconds, seed=seed, work=_WORK * seconds)

    def part(self, share: float) -> Limits:
        """Return a share of time and work."""
        return replace(self, seconds=share * self.seconds, work=share * self.work)

    def after(self, used: float) -> Limits:
        """Return what is left on the clock; work does not depend on the clock."""
        return replace(self, seconds=max(self.seconds - used, _LEAST))


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """A solver's raw answer, in the integers of the instance.

    Parameters
    ----------
    matrix : ndarray of bool, shape (C, E)
        Free pairs held; pins are not in it.
    bound : int or None
        Upper bound on the integer objective; None when the solver has none.
    proved : bool
        Whether the solver itself claims optimality.
    certified : bool
        Whether prices prove it optimal, independently of the solver.
    note : str
        What the caller should know, e.g. that a fallback was taken.
    """

    matrix: NDArray[np.bool_]
    bound: int | None
    proved: bool
    certified: bool = False
    note: str = ""
