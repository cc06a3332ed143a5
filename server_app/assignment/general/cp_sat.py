"""The assignment problem in CP-SAT: every variant, with a bound and a gap.

FLEX-MoE's integer program (docs/methods.md, section 1). One worker, a fixed seed and a
deterministic time limit, so that the same input gives the same answer on any machine.

Bounds that cannot all be met are relaxed in two solves rather than with a big-M: first
the smallest total violation, then the best objective at that violation. A penalty
"above any fitness gain" is exactly this, without coefficients that drown the fitness.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from ortools.sat.python import cp_model

from server_app.assignment.general.rows import rows_of
from server_app.assignment.integers import IntegerProblem, Mask
from server_app.assignment.limits import CLOCK, SolverAnswer, WorkLimits

__all__ = ["solve_cp_sat"]

#: The LP relaxation of the whole model: close to integral here, unlike most models.
_LINEAR = 2


def solve_cp_sat(
    problem: IntegerProblem, limits: WorkLimits, hint: Mask
) -> SolverAnswer:
    """Solve a problem with CP-SAT, relaxing bounds only if they conflict.

    Parameters
    ----------
    problem : IntegerProblem
        The problem.
    limits : WorkLimits
        Time limit and seed.
    hint : ndarray of bool, shape (C, E)
        An assignment within the budgets to start from; returned if nothing better is
        found in time.

    Returns
    -------
    SolverAnswer
        Who holds what, bound on the integer objective, and whether it is proved.
    """
    clock = time.perf_counter()
    strict = _CpSatModel(problem, soft=False)
    strict.model.maximize(strict.objective)
    answer = strict.run(limits, hint)
    if not strict.infeasible:
        return answer
    soft = _CpSatModel(problem, soft=True)
    soft.model.minimize(soft.violation)
    least = soft.run(limits.after(time.perf_counter() - clock), hint)
    violation = problem.violation(least.matrix).total(problem.placement)
    soft.model.clear_objective()  # type: ignore[no-untyped-call]
    soft.model.add(soft.violation <= violation)
    soft.model.maximize(soft.objective)
    best = soft.run(limits.after(time.perf_counter() - clock), least.matrix)
    proved = best.proved and least.proved
    return replace(best, proved=proved, note=best.note or least.note)


class _CpSatModel:
    """A problem in CP-SAT's terms, and the two things one may optimise.

    With ``soft`` every load bound and every group may be missed, which counts as
    ``violation``.
    """

    def __init__(self, problem: IntegerProblem, *, soft: bool) -> None:
        self.model = cp_model.CpModel()
        self.infeasible = False
        self._where = np.nonzero(problem.allowed)
        self._pairs = [self.model.new_bool_var("") for _ in self._where[0]]
        missed = []
        for row in rows_of(problem):
            chosen = [self._pairs[pair] for pair in row.variables.tolist()]
            coefficients = row.coefficients.tolist()
            total = cp_model.LinearExpr.weighted_sum(chosen, coefficients)
            if soft and row.price:
                most = sum(coefficients) if row.low is None else row.low
                miss = self.model.new_int_var(0, most, "")
                missed.append(row.price * miss)
                total += miss if row.high is None else -miss
            if row.low is not None:
                self.model.add(total >= row.low)
            if row.high is not None:
                self.model.add(total <= row.high)
        gains = problem.gain[self._where].tolist()
        self.objective = cp_model.LinearExpr.weighted_sum(self._pairs, gains)
        self.violation = cp_model.LinearExpr.sum(missed)

    def run(self, limits: WorkLimits, hint: Mask) -> SolverAnswer:
        """Solve; what it finds, or the hint without a bound."""
        self.model.clear_hints()  # type: ignore[no-untyped-call]
        for pair, value in zip(self._pairs, hint[self._where].tolist(), strict=True):
            self.model.add_hint(pair, value)
        solver = cp_model.CpSolver()
        # Its handler leaves none behind: the next Ctrl-C would kill the process.
        solver.parameters.catch_sigint_signal = False
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = limits.seed
        # Presolve finds nothing in budgets and bands, and spoils their relaxation.
        solver.parameters.cp_model_presolve = False
        solver.parameters.linearization_level = _LINEAR
        solver.parameters.max_deterministic_time = limits.deterministic
        solver.parameters.max_time_in_seconds = limits.guard
        status = solver.solve(self.model)
        if status == cp_model.MODEL_INVALID:
            # Not the same as infeasible: a relaxed model would be as wrong.
            raise RuntimeError(f"CP-SAT cannot take this: {self.model.validate()}")
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            self.infeasible = status == cp_model.INFEASIBLE
            return SolverAnswer(matrix=hint, bound=None, proved=False)
        matrix = np.zeros_like(hint)
        matrix[self._where] = [solver.boolean_value(pair) for pair in self._pairs]
        proved = status == cp_model.OPTIMAL
        clock = not proved and solver.wall_time >= limits.guard
        return SolverAnswer(
            matrix=matrix,
            bound=int(np.floor(solver.best_objective_bound + 0.5)),
            proved=proved,
            note=CLOCK if clock else "",
        )
