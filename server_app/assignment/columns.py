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

import numpy as np

from server_app.assignment.greedy import solve_greedy
from server_app.assignment.instance import Instance, Mask
from server_app.assignment.limits import Answer, Limits
from server_app.assignment.master import Master
from server_app.assignment.oracle import Column
from server_app.assignment.prices import Dual

__all__ = ["solve_columns"]

#: Rounds of plain subgradient before the master has columns worth mixing.
_WARM_ROUNDS = 25
_ROUNDS = 60
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
        Time limit, used as a guard: normally the iteration limits end the work.

    Returns
    -------
    Answer
        The best of the greedy answer, the rounded master and the integer master; with
        the Lagrangian bound. ``proved`` only if the two meet.
    """
    clock = time.perf_counter()
    dual = Dual(instance)
    master = Master(instance, dual)
    greedy = solve_greedy(instance)
    master.add(_columns_of(greedy))

    best = dual.start()
    best_bound = np.inf
    trial, stride = best, 1.0
    for warm in range(_WARM_ROUNDS):
        columns, bound = dual.evaluate(trial)
        if warm >= _WARM_ROUNDS // 2:
            master.add(columns)
        if bound < best_bound:
            best, best_bound = trial, bound
        else:
            stride *= 0.7
        step = dual.subgradient(columns)
        if not step.any():
            master.add(columns)
            break
        trial = dual.moved(best if bound > best_bound else trial, step, stride)
    for _ in range(_ROUNDS):
        value, duals = master.solve()
        if best_bound - value <= _CLOSE * max(abs(value), 1.0):
            break
        if time.perf_counter() - clock > limits.seconds:
            break
        trial = best.mixed(duals, _SMOOTHING)
        columns, bound = dual.evaluate(trial)
        new = master.add(columns)
        if bound < best_bound:
            best, best_bound = trial, bound
        if not new:
            # Smoothed prices found nothing: ask the master's own.
            columns, bound = dual.evaluate(duals)
            new = master.add(columns)
            if bound < best_bound:
                best, best_bound = duals, bound
            if not new:
                break
    remaining = limits.after(time.perf_counter() - clock)
    candidates = [greedy, master.rounded(), *master.integer(best, remaining)]
    matrix = min(candidates, key=lambda found: _rank(instance, found))
    return _answer(instance, matrix, dual, best_bound)


def _answer(instance: Instance, matrix: Mask, dual: Dual, bound: float) -> Answer:
    """Turn the bound on gain minus priced violation into one on the objective."""
    missed = instance.violation(matrix).total(instance.placement_unit)
    whole = int(np.floor(bound + missed * dual.violation_price))
    value = instance.value(matrix)
    return Answer(
        matrix=matrix,
        bound=max(whole, value),
        proved=not missed and whole <= value,
    )


def _rank(instance: Instance, matrix: Mask) -> tuple[int, int]:
    """Order matrices by violation, then by objective."""
    missed = instance.violation(matrix).total(instance.placement_unit)
    return missed, -instance.value(matrix)


def _columns_of(matrix: Mask) -> list[Column]:
    """Return each client's row as a column."""
    return [tuple(np.flatnonzero(row).tolist()) for row in matrix]
