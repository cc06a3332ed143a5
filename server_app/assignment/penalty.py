"""The convex load penalty in the solvers' integers.

Counted loads: ``w * (load - target)**2``, rounded marginal by marginal so that the
integer function stays convex and a flow can carry it exactly. Weighted loads:
``w * steps**2`` with ``steps = ceil(|load - target| / mean weight)``, because a load in
bytes or samples has far too many values to price one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LoadPenalty"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadPenalty:
    """Integer penalty of each expert as a function of its integer load.

    Parameters
    ----------
    weight : float
        Quantised fitness units per squared step; 0 switches the penalty off.
    target : ndarray of float, shape (E,)
        Load without penalty, in load quanta.
    step : int or None
        Load quanta per step for weighted loads; None for counted loads.
    """

    weight: float
    target: NDArray[np.float64]
    step: int | None = None

    def __bool__(self) -> bool:
        return self.weight > 0.0

    def marginal(self, experts: Ints | int, loads: Ints) -> Ints:
        """Return the cost of raising a counted load from ``loads`` to ``loads + 1``."""
        slope = self.weight * (2.0 * (loads - self.target[experts]) + 1.0)
        return np.rint(slope).astype(np.int64)

    def steps_cost(self, steps: Ints) -> Ints:
        """Return the cost of a weighted load that is ``steps`` from its target."""
        return np.rint(self.weight * steps.astype(np.float64) ** 2).astype(np.int64)

    def steps(self, expert: int, loads: Ints) -> Ints:
        """Return the whole steps, rounded up, between weighted loads and the target."""
        if self.step is None:
            raise ValueError("counted loads have no steps")
        first, last = self.plateau(expert)
        distance = np.maximum(np.maximum(first - loads, loads - last), 0)
        rounded_up: Ints = -(-distance // self.step)
        return rounded_up

    def plateau(self, expert: int) -> tuple[int, int]:
        """Return the whole loads next to the target: (ceil, floor).

        A whole load is within n steps of the target exactly if it is at least
        ``ceil - n * step`` and at most ``floor + n * step``.
        """
        target = float(self.target[expert])
        return int(np.ceil(target)), int(np.floor(target))

    def of(self, expert: int, load: int) -> int:
        """Return the penalty of one expert at a counted load."""
        start = int(np.rint(self.weight * self.target[expert] ** 2))
        return start + int(self.marginal(expert, np.arange(load)).sum())

    def total(self, load: Ints) -> int:
        """Return the summed penalty of the loads, shape (E,)."""
        if not self:
            return 0
        if self.step is not None:
            steps = [int(self.steps(e, load[e])) for e in range(len(load))]
            return int(self.steps_cost(np.array(steps)).sum())
        return sum(self.of(expert, value) for expert, value in enumerate(load.tolist()))
