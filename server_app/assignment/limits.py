"""What a solver is given besides the instance, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answer", "Limits"]

#: Seconds of wall time after which a deterministic limit is cut off regardless, as a
#: multiple of the time limit. A run that hits it is not reproducible, and says so.
_GUARD = 3.0
_LEAST = 0.05


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a solver may work, and its seed.

    Parameters
    ----------
    seconds : float
        Time limit. Solvers that count work instead of time are given the work that
        takes about this long on one core.
    seed : int
        Seed of the solver's own randomness.
    """

    seconds: float
    seed: int

    @property
    def guard(self) -> float:
        """Wall time in seconds at which even deterministic work is cut off."""
        return _GUARD * self.seconds

    def after(self, used: float) -> Limits:
        """Return the limits left when ``used`` seconds are spent."""
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
