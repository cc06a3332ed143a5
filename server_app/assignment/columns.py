"""Column generation: near-optimal answers with a tight bound where flow is not exact.

Byte budgets and data-weighted loads make a generalised assignment problem. Its plain LP
bound is several percent off, because every client's last expert is cut in two, and
branch and bound stalls on it. Dantzig and Wolfe's decomposition does not: a *column* is
a whole set of experts that one client can hold, a master LP (GLOP) mixes columns so
that loads keep their bands, its duals are prices of load, and each client answers with
its best column at those prices (:mod:`.oracle`). Only 2 E load bounds couple the
clients, so at most about that many clients end up split between columns, and HiGHS
settles them over the columns found.

The bound is the Lagrangian one at the best prices, valid whatever the master did. Work
is limited in iterations and nodes rather than seconds; the clock is only a guard.

Source: Dantzig and Wolfe (1960); price smoothing after Wentges (1997).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from server_app.assignment.greedy import solve_greedy
from server_app.assignment.instance import Instance, Mask
from server_app.assignment.limits import CLOCK, Answer, Limits
from server_app.assignment.master import Master
from server_app.assignment.oracle import Column
from server_app.assignment.prices import Dual, Prices

__all__ = ["solve_columns"]

#: Rounds of plain subgradient before the master has columns worth mixing, rounds of
#: pricing after, and what one of either takes per client: large fleets get fewer.
_WARM_ROUNDS = 25
_WARM_SECONDS = 1e-4
_ROUNDS = 60
_SECONDS = 3e-4
#: How far prices stay at the best known ones against the master's jumps.
_SMOOTHING = 0.7
#: Relative distance of master and bound at which pricing stops.
_CLOSE = 2e-5


def solve_columns(instance: Instance, limits: Limits) -> Answer:
    """Solve any instance by column generation, and bound it.

    Parameters
    ----------
    instance : Instance
        The integer problem.
    limits : Limits
        Rounds follow from the time limit and the size, not from the clock.

    Returns
    -------
    Answer
        The best of the greedy answer, the rounded master and the integer master; with
        the Lagrangian bound. ``proved`` only if the two meet.
    """
    clock = time.perf_counter()

    def spent() -> float:
        return time.perf_counter() - clock

    search = _Search(instance)
    greedy = solve_greedy(instance)
    search.master.add([tuple(np.flatnonzero(row).tolist()) for row in greedy])
    clients = len(instance.room)
    search.warm_up(limits.rounds(_WARM_SECONDS * clients, _WARM_ROUNDS))
    late = search.price_out(
        limits.rounds(_SECONDS * clients, _ROUNDS),
        lambda: spent() > limits.guard / 2,
    )
    search.master.settle()
    left = limits.after(spent())
    candidates = [greedy, search.master.rounded()]
    candidates += search.master.integer(search.best, left)
    matrix = min(candidates, key=lambda found: _rank(instance, found))
    note = CLOCK if late or spent() > limits.guard else ""
    return _answer(instance, matrix, search, note)


class _Search:
    """The best prices so far, and the columns met on the way."""

    def __init__(self, instance: Instance) -> None:
        self.dual = Dual(instance)
        self.master = Master(instance, self.dual)
        self.best = self.dual.start()
        self.bound = np.inf

    def look(self, prices: Prices) -> tuple[list[Column], bool]:
        """Return the clients' columns at some prices; keep the prices if best."""
        columns, bound = self.dual.evaluate(prices)
        better = bound < self.bound
        if better:
            self.best, self.bound = prices, bound
        return columns, better

    def warm_up(self, rounds: int) -> None:
        """Follow subgradients to sensible prices."""
        trial, stride = self.best, 1.0
        for step in range(rounds):
            columns, better = self.look(trial)
            uneven = self.dual.subgradient(columns)
            # Columns at the first prices are too poor to be worth mixing.
            if step >= rounds // 2 or not uneven.any():
                self.master.add(columns)
            if not uneven.any():
                break
            if not better:
                stride *= 0.7
            trial = self.dual.moved(self.best, uneven, stride)

    def price_out(self, rounds: int, late: Callable[[], bool]) -> bool:
        """Generate columns until no price finds another; true if the clock ran out."""
        for _ in range(rounds):
            value, duals = self.master.solve()
            if self.bound - value <= _CLOSE * max(abs(value), 1.0):
                break
            if late():
                return True
            columns, _ = self.look(self.best.mixed(duals, _SMOOTHING))
            if self.master.add(columns):
                continue
            # Smoothed prices found nothing: ask at the master's own.
            columns, _ = self.look(duals)
            if not self.master.add(columns):
                break
        return False


def _answer(instance: Instance, matrix: Mask, search: _Search, note: str) -> Answer:
    """Turn the bound on gain minus priced violation into one on the objective."""
    missed = instance.violation(matrix).total(instance.placement_unit)
    whole = int(np.floor(search.bound + missed * search.dual.violation_price))
    value = instance.value(matrix)
    return Answer(
        matrix=matrix,
        bound=max(whole, value),
        proved=not missed and whole <= value,
        note=note,
    )


def _rank(instance: Instance, matrix: Mask) -> tuple[int, int]:
    """Order matrices by violation, then by objective."""
    missed = instance.violation(matrix).total(instance.placement_unit)
    return missed, -instance.value(matrix)
