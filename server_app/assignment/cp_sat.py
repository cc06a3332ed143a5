"""The assignment problem as a CP-SAT model: every variant, bound and gap reported.

One worker, a fixed seed and a deterministic time limit, so that the same input gives
the same answer on any machine. The model is FLEX-MoE's integer program (METHODS.md
section 1) plus the variants of `AssignmentProblem`.

Bounds that cannot all be met are relaxed in two solves rather than with a big-M: first
the smallest total violation, then the best objective at that violation. A penalty
"above any fitness gain" is exactly this, without coefficients that drown the fitness.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from server_app.assignment.instance import Instance
from server_app.assignment.limits import Answer, Limits

__all__ = ["solve_cp_sat"]

Mask = NDArray[np.bool_]
_Item = TypeVar("_Item")

#: Presolve costs more than it saves on models of one big transportation structure.
_PRESOLVE_BELOW = 2_000


@dataclass(kw_only=True)
class _Model:
    """A CP-SAT model, its free pairs and the two things one may optimise."""

    model: cp_model.CpModel
    clients: NDArray[np.int64]
    experts: NDArray[np.int64]
    pairs: list[cp_model.IntVar]
    objective: cp_model.LinearExpr
    violation: cp_model.LinearExpr


def solve_cp_sat(
    instance: Instance, limits: Limits, hint: Mask | None = None
) -> Answer:
    """Solve an instance with CP-SAT, relaxing bounds only if they conflict.

    Parameters
    ----------
    instance : Instance
        The integer problem.
    limits : Limits
        Time limit and seed.
    hint : ndarray of bool, shape (C, E), optional
        A valid matrix of free pairs to start from.

    Returns
    -------
    Answer
        Free pairs held, bound on the integer objective, and whether it is proved.
    """
    clock = time.perf_counter()
    strict = _build(instance, soft=False)
    strict.model.maximize(strict.objective)
    answer = _run(instance, strict, limits, hint)
    if answer is not None:
        return answer
    # Infeasible, or nothing found in time: only the soft model has an answer.
    soft = _build(instance, soft=True)
    soft.model.minimize(soft.violation)
    least = _run(instance, soft, limits.after(time.perf_counter() - clock), hint)
    if least is None:
        empty = np.zeros_like(instance.free) if hint is None else hint
        return Answer(matrix=empty, bound=None, proved=False)
    violation = instance.violation(least.matrix).total(instance.placement_unit)
    soft.model.clear_objective()  # type: ignore[no-untyped-call]
    soft.model.add(soft.violation <= violation)
    soft.model.maximize(soft.objective)
    remaining = limits.after(time.perf_counter() - clock)
    best = _run(instance, soft, remaining, least.matrix)
    if best is None:
        return Answer(matrix=least.matrix, bound=None, proved=False)
    proved = best.proved and least.proved
    return Answer(matrix=best.matrix, bound=best.bound, proved=proved)


def _build(instance: Instance, *, soft: bool) -> _Model:
    """State the instance; with ``soft`` every relaxable bound gets a slack variable."""
    model = cp_model.CpModel()
    clients, experts = np.nonzero(instance.free)
    pairs = [model.new_bool_var("") for _ in range(clients.size)]
    gain = instance.gain[clients, experts].tolist()
    objective = cp_model.LinearExpr.weighted_sum(pairs, gain)
    objective += int(instance.gain[instance.fixed].sum())
    slack: list[cp_model.LinearExpr] = []
    unit = instance.placement_unit

    def missing(expression: cp_model.LinearExpr, at_least: int, worth: int) -> None:
        if soft:
            short = model.new_int_var(0, at_least, "")
            slack.append(worth * short)
            model.add(expression + short >= at_least)
        else:
            model.add(expression >= at_least)

    by_client = _split(clients, pairs, instance.room.size)
    experts_of = _split(clients, experts.tolist(), instance.room.size)
    for client, (row, held) in enumerate(zip(by_client, experts_of, strict=True)):
        sizes = instance.sizes[held].tolist()
        if sum(sizes) > instance.room[client]:
            budget = cp_model.LinearExpr.weighted_sum(row, sizes)
            model.add(budget <= int(instance.room[client]))
        if instance.floor[client] > 0:
            missing(cp_model.LinearExpr.sum(row), int(instance.floor[client]), unit)
        for members in instance.exclusive:
            rivals = [x for x, e in zip(row, held, strict=True) if e in members]
            if len(rivals) > 1:
                model.add_at_most_one(rivals)
        for group in np.flatnonzero(instance.needs[client]).tolist():
            label = instance.groups
            inside = [x for x, e in zip(row, held, strict=True) if label[e] == group]
            missing(cp_model.LinearExpr.sum(inside), 1, unit)

    by_expert = _split(experts, pairs, instance.sizes.size)
    weights_of = _split(experts, instance.weights[clients].tolist(), len(by_expert))
    for expert, (column, weights) in enumerate(zip(by_expert, weights_of, strict=True)):
        load = cp_model.LinearExpr.weighted_sum(column, weights)
        low, high = int(instance.lower[expert]), int(instance.upper[expert])
        most = sum(weights)
        if low > 0:
            missing(load, low, 1)
        if instance.holders[expert] > 0:
            missing(
                cp_model.LinearExpr.sum(column), int(instance.holders[expert]), unit
            )
        if high < most:
            if soft:
                over = model.new_int_var(0, most - min(high, 0), "")
                slack.append(over)
                model.add(load - over <= high)
            else:
                model.add(load <= high)
        if instance.penalty:
            span = (0, most) if soft else (low, min(high, most))
            objective -= _penalise(model, instance, expert, load, span)
    return _Model(
        model=model,
        clients=clients,
        experts=experts,
        pairs=pairs,
        objective=objective,
        violation=cp_model.LinearExpr.sum(slack),
    )


def _penalise(
    model: cp_model.CpModel,
    instance: Instance,
    expert: int,
    load: cp_model.LinearExpr,
    span: tuple[int, int],
) -> cp_model.LinearExpr:
    """Return the load penalty of one expert as a sum of steps of rising price."""
    penalty, pins = instance.penalty, int(instance.fixed_load[expert])
    low, high = span
    if low > high:
        return cp_model.LinearExpr.sum([])
    if penalty.step is None:
        # At the optimum the cheap steps are taken first: the penalty is convex.
        steps = [model.new_bool_var("") for _ in range(high - low)]
        model.add(load == low + cp_model.LinearExpr.sum(steps))
        prices = penalty.marginal(expert, np.arange(low, high) + pins)
        start = penalty.of(expert, low + pins)
        return cp_model.LinearExpr.weighted_sum(steps, prices.tolist()) + start
    target = round(float(penalty.target[expert])) - pins
    most = max(abs(low - target), abs(high - target))
    count = -(-most // penalty.step)
    steps = [model.new_bool_var("") for _ in range(count)]
    reach = penalty.step * cp_model.LinearExpr.sum(steps)
    model.add(reach >= load - target)
    model.add(reach >= target - load)
    prices = np.diff(penalty.steps_cost(np.arange(count + 1)))
    return cp_model.LinearExpr.weighted_sum(steps, prices.tolist())


def _run(
    instance: Instance, stated: _Model, limits: Limits, hint: Mask | None
) -> Answer | None:
    """Solve one stated model; None when it yields no assignment."""
    stated.model.clear_hints()  # type: ignore[no-untyped-call]
    if hint is not None:
        values = hint[stated.clients, stated.experts].tolist()
        for pair, value in zip(stated.pairs, values, strict=True):
            stated.model.add_hint(pair, value)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = limits.seed
    solver.parameters.cp_model_presolve = len(stated.pairs) < _PRESOLVE_BELOW
    solver.parameters.max_deterministic_time = limits.seconds
    solver.parameters.max_time_in_seconds = limits.guard
    status = solver.solve(stated.model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    matrix = np.zeros_like(instance.free)
    values = [solver.boolean_value(pair) for pair in stated.pairs]
    matrix[stated.clients, stated.experts] = values
    return Answer(
        matrix=matrix,
        bound=int(np.floor(solver.best_objective_bound + 0.5)),
        proved=status == cp_model.OPTIMAL,
    )


def _split(
    keys: NDArray[np.int64], items: list[_Item], count: int
) -> list[list[_Item]]:
    """Group ``items`` by their key."""
    groups: list[list[_Item]] = [[] for _ in range(count)]
    for key, item in zip(keys.tolist(), items, strict=True):
        groups[key].append(item)
    return groups
