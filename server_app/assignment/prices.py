"""Prices of load and what they prove: the Lagrangian dual of any instance.

Move the load bands into the objective at a price per unit of load and every client is
on its own. The sum of what clients and experts then gain at most is an upper bound on
the problem, for any prices. `Dual` evaluates it, in floats with the rounding error
added on the safe side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.instance import Instance, Ints
from server_app.assignment.oracle import Column, Oracle

__all__ = ["Dual", "LoadCost", "Prices"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prices:
    """Prices of each expert, in integer fitness.

    Parameters
    ----------
    load : ndarray of float, shape (E,)
        What a client pays per quantum of load it adds; may be negative.
    holder : ndarray of float, shape (E,)
        What a client is paid for being a holder, >= 0.
    """

    load: Floats
    holder: Floats

    def mixed(self, other: Prices, own: float) -> Prices:
        """Return ``own`` times these prices plus the rest of the other's."""
        return Prices(
            load=own * self.load + (1.0 - own) * other.load,
            holder=own * self.holder + (1.0 - own) * other.holder,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadCost:
    """Cost of one expert's load: penalty, and violation of its band.

    Parameters
    ----------
    loads, costs : ndarray of float
        Loads at which price times load minus cost can be greatest, and the cost there.
    knots, values : ndarray of float
        A convex piecewise linear version for a master LP.
    """

    loads: Floats
    costs: Floats
    knots: Floats
    values: Floats


class Dual:
    """The Lagrangian dual function of an instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        most = int(np.sort(instance.free.sum(axis=1))[-1]) if instance.free.size else 0
        unit = instance.placement_unit
        # Well above what a placement can gain; the bound holds at any price. Whole, so
        # that the oracle's integers and the floats here are the same price.
        steepest = float(np.abs(instance.gain).max(initial=1)) + self._steepest_step()
        price = 4.0 * steepest * max(min(most, 8), 1) / unit
        self.violation_price = float(np.ceil(price))
        self._oracle = Oracle(instance, int(self.violation_price * unit))
        self.costs = [self._load_cost(e) for e in range(len(instance.sizes))]

    def start(self) -> Prices:
        """Return prices at which each expert attracts about its share of clients."""
        instance = self._instance
        count = np.minimum(
            instance.free.sum(axis=1), instance.room / instance.sizes.mean()
        )
        share = min(float(count.sum()) / max(instance.free.size, 1), 1.0)
        price = np.quantile(instance.gain, 1.0 - share, axis=0)
        mean_weight = max(float(instance.weights.mean()), 1e-9)
        zero = np.zeros(len(instance.sizes))
        return Prices(load=0.8 * price / mean_weight, holder=zero)

    def evaluate(self, prices: Prices) -> tuple[list[Column], float]:
        """Return every client's best column at these prices, and the bound."""
        instance = self._instance
        paid = np.rint(prices.load * instance.weights[:, None] - prices.holder)
        worth: Ints = instance.gain - paid.astype(np.int64)
        chosen = [self._oracle.choose(c, row) for c, row in enumerate(worth)]
        bound = float(sum(choice.bound for choice in chosen))
        bound += float(instance.gain[instance.fixed].sum())
        for cost, price in zip(self.costs, prices.load.tolist(), strict=True):
            bound += float((price * cost.loads - cost.costs).max())
        steep = self.violation_price * instance.placement_unit
        unmet = np.maximum(prices.holder - steep, 0.0) - prices.holder
        bound += float((unmet * instance.holders).sum())
        # Worth was rounded by up to a half per pair, and the sums above are floats.
        slop = 0.5 * float(instance.free.sum()) + 1e-12 * abs(bound) + 1.0
        return [choice.column for choice in chosen], bound + slop

    def subgradient(self, columns: list[Column]) -> Floats:
        """Return by how much columns miss each band, in quanta; above is positive."""
        instance = self._instance
        load = np.zeros(len(instance.sizes))
        for column, weight in zip(columns, instance.weights.tolist(), strict=True):
            load[list(column)] += weight
        above = np.maximum(load - instance.upper, 0.0)
        return above - np.maximum(instance.lower - load, 0.0)

    def moved(self, prices: Prices, step: Floats, stride: float) -> Prices:
        """Return prices moved along a subgradient, a tenth of a gain at stride 1."""
        spread = float(np.ptp(self._instance.gain)) or 1.0
        weight = max(float(self._instance.weights.mean()), 1e-9)
        length = 0.1 * stride * spread / weight / float(np.abs(step).max())
        return Prices(load=prices.load + length * step, holder=prices.holder)

    def _steepest_step(self) -> float:
        """Return about the most that one placement can change the penalty."""
        instance = self._instance
        if not instance.penalty:
            return 0.0
        mean = float(instance.load(instance.free).mean())
        return instance.penalty.weight * (2.0 * mean / instance.placement_unit + 1.0)

    def _load_cost(self, expert: int) -> LoadCost:
        instance, penalty = self._instance, self._instance.penalty
        weights = instance.weights[instance.free[:, expert]]
        most = int(weights.sum())
        low, high = int(instance.lower[expert]), int(instance.upper[expert])
        pins = int(instance.fixed_load[expert])
        bends = {0, most, *(b for b in (low, high) if 0 <= b <= most)}
        knots = set(bends)
        if penalty:
            first, last = (end - pins for end in penalty.plateau(expert))
            step = penalty.step or 1
            rungs = np.unique(np.geomspace(1, 2 + most // step, 24).astype(np.int64))
            knots |= {first, last}
            knots |= {first - step * r for r in rungs.tolist()}
            knots |= {last + step * r for r in rungs.tolist()}
        if penalty and penalty.step is None:
            bends |= set(range(most + 1))
        elif penalty:
            count = max(abs(first), abs(most - last)) // step + 1
            stairs = [first - step * n for n in range(count + 1)]
            stairs += [last + step * n for n in range(count + 1)]
            bends |= {stair + edge for stair in stairs for edge in (-1, 0, 1)}

        def cost(loads: set[int]) -> tuple[Floats, Floats]:
            at = np.array(sorted(load for load in loads if 0 <= load <= most))
            missed = np.maximum(low - at, 0) + np.maximum(at - high, 0)
            total = self.violation_price * missed
            return at.astype(np.float64), total + self._penalty(expert, at + pins)

        loads, costs = cost(bends)
        at, values = cost(knots)
        return LoadCost(loads=loads, costs=costs, knots=at, values=values)

    def _penalty(self, expert: int, loads: Ints) -> Floats:
        penalty = self._instance.penalty
        if not penalty:
            return np.zeros(len(loads))
        if penalty.step is None:
            rise = penalty.marginal(expert, np.arange(int(loads.max(initial=0)) + 1))
            sums = np.concatenate([[0], np.cumsum(rise)])
            return (penalty.of(expert, 0) + sums[loads]).astype(np.float64)
        return penalty.steps_cost(penalty.steps(expert, loads)).astype(np.float64)
