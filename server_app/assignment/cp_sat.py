"""The assignment problem in CP-SAT: every variant, with a bound and a gap.

This is FLEX-MoE's integer program (METHODS.md section 1). One worker, a fixed seed and
a deterministic time limit, so that the same input gives the same answer on any machine.

Bounds that cannot all be met are relaxed in two solves rather than with a big-M: first
the smallest total violation, then the best objective at that violation. A penalty
"above any fitness gain" is exactly this, without coefficients that drown the fitness.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from ortools.sat.python import cp_model

from server_app.assignment.instance import Instance, Mask
from server_app.assignment.limits import CLOCK, Answer, Limits
from server_app.assignment.statement import Row, Statement, state

__all__ = ["solve_cp_sat"]

#: The LP relaxation of the whole model: close to integral here, unlike most models.
_LINEAR = 2


def solve_cp_sat(
    instance: Instance,
    limits: Limits,
    hint: Mask | None = None,
    bound: int | None = None,
    *,
    tuned: bool = True,
) -> Answer:
    """Solve an instance with CP-SAT, relaxing bounds only if they conflict.

    Parameters
    ----------
    instance : Instance
        The integer problem.
    limits : Limits
        Time limit and seed.
    hint : ndarray of bool, shape (C, E), optional
        A valid matrix of free pairs to start from; returned if nothing better is found.
    bound : int, optional
        A proved bound on the objective at the hint's violation: the search stops there.
    tuned : bool
        False leaves OR-Tools' defaults alone, for comparison: presolve, all cores and a
        limit on the clock, so that answers need not repeat.

    Returns
    -------
    Answer
        Free pairs held, bound on the integer objective, and whether it is proved.
    """
    clock = time.perf_counter()
    if hint is None or not instance.violation(hint).total(1):
        strict = _Model.build(instance, soft=False)
        strict.model.maximize(strict.objective)
        answer = strict.run(instance, limits, hint, bound, tuned=tuned)
        if answer is not None:
            return answer
        if hint is not None:
            return Answer(matrix=hint, bound=None, proved=False)
    # Infeasible, or nothing found in time: only the soft model has an answer.
    soft = _Model.build(instance, soft=True)
    soft.model.minimize(soft.violation)
    left = limits.after(time.perf_counter() - clock)
    least = soft.run(instance, left, hint, tuned=tuned)
    if least is None:
        empty = np.zeros_like(instance.free) if hint is None else hint
        return Answer(matrix=empty, bound=None, proved=False)
    violation = instance.violation(least.matrix).total(instance.placement_unit)
    soft.model.clear_objective()  # type: ignore[no-untyped-call]
    soft.model.add(soft.violation <= violation)
    soft.model.maximize(soft.objective)
    left = limits.after(time.perf_counter() - clock)
    best = soft.run(instance, left, least.matrix, tuned=tuned)
    if best is None:
        return Answer(matrix=least.matrix, bound=None, proved=False)
    proved = best.proved and least.proved
    return replace(best, proved=proved, note=best.note or least.note)


@dataclass(kw_only=True)
class _Model:
    """A statement in CP-SAT's terms, and the two things one may optimise."""

    model: cp_model.CpModel
    statement: Statement
    variables: list[cp_model.IntVar]
    objective: cp_model.LinearExpr
    violation: cp_model.LinearExpr

    @staticmethod
    def build(instance: Instance, *, soft: bool) -> _Model:
        """Translate an instance; with ``soft`` every relaxable row gets slack."""
        statement = state(instance, soft=soft)
        model = cp_model.CpModel()
        variables = [model.new_bool_var("") for _ in statement.gains]
        slack: list[cp_model.LinearExpr] = []
        for row in statement.rows:
            chosen = [variables[index] for index in row.variables]
            total = cp_model.LinearExpr.weighted_sum(chosen, row.coefficients)
            slack += _add(model, row, total, soft=soft)
        gain = cp_model.LinearExpr.weighted_sum(variables, statement.gains)
        return _Model(
            model=model,
            statement=statement,
            variables=variables,
            objective=gain + statement.constant,
            violation=cp_model.LinearExpr.sum(slack),
        )

    def run(
        self,
        instance: Instance,
        limits: Limits,
        hint: Mask | None,
        target: int | None = None,
        *,
        tuned: bool = True,
    ) -> Answer | None:
        """Solve, up to the objective ``target``; None if it yields no assignment."""
        pairs = self.variables[: len(self.statement.clients)]
        where = self.statement.clients, self.statement.experts
        self.model.clear_hints()  # type: ignore[no-untyped-call]
        if hint is not None:
            for pair, value in zip(pairs, hint[where].tolist(), strict=True):
                self.model.add_hint(pair, value)
        solver = cp_model.CpSolver()
        if tuned:
            solver.parameters.num_workers = 1
            solver.parameters.random_seed = limits.seed
            # Presolve finds nothing in budgets and bands, and spoils their relaxation.
            solver.parameters.cp_model_presolve = False
            solver.parameters.linearization_level = _LINEAR
            solver.parameters.max_deterministic_time = limits.deterministic
            solver.parameters.max_time_in_seconds = limits.guard
        else:
            solver.parameters.max_time_in_seconds = min(limits.seconds, limits.guard)
        status = solver.solve(self.model, _StopAt(target))
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        matrix = np.zeros_like(instance.free)
        matrix[where] = [solver.boolean_value(pair) for pair in pairs]
        bound = int(np.floor(solver.best_objective_bound + 0.5))
        if target is not None:
            bound = min(bound, target)
        proved = status == cp_model.OPTIMAL or bound <= solver.objective_value
        clock = not proved and solver.wall_time >= limits.guard
        note = CLOCK if clock else ""
        return Answer(matrix=matrix, bound=bound, proved=proved, note=note)


class _StopAt(cp_model.CpSolverSolutionCallback):
    """Stop the search at a solution that is known to be optimal."""

    def __init__(self, target: int | None) -> None:
        super().__init__()
        self._target = target

    def on_solution_callback(self) -> None:
        """See whether the solution just found attains the target."""
        if self._target is not None and self.objective_value >= self._target:
            self.stop_search()


def _add(
    model: cp_model.CpModel, row: Row, total: cp_model.LinearExpr, *, soft: bool
) -> list[cp_model.LinearExpr]:
    """Add a row to the model and return what its violation costs."""
    least, most = row.reach
    slack: list[cp_model.LinearExpr] = []
    if row.low is not None:
        if soft and row.worth:
            short = model.new_int_var(0, max(row.low - least, 0), "")
            slack.append(row.worth * short)
            model.add(total + short >= row.low)
        else:
            model.add(total >= row.low)
    if row.high is not None:
        if soft and row.worth:
            over = model.new_int_var(0, max(most - row.high, 0), "")
            slack.append(row.worth * over)
            model.add(total - over <= row.high)
        else:
            model.add(total <= row.high)
    return slack
