"""The assignment problem in HiGHS: what byte sizes and weighted loads are solved by.

Its cuts close in seconds what CP-SAT leaves open for minutes; but it works in floats,
and its limit is the clock, so that an answer it ends may not repeat exactly.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import replace

import numpy as np
from ortools.math_opt.python import mathopt

from server_app.assignment.general.rows import rows_of
from server_app.assignment.integers import IntegerProblem, Mask
from server_app.assignment.limits import CLOCK, SolverAnswer, WorkLimits

__all__ = ["solve_highs"]

#: What HiGHS calls optimal is optimal to this relative distance.
_TOLERANCE = 1e-9
_LEAST_SECONDS, _MOST_SECONDS = 0.05, 1e9
#: The second is what presolve says where it does not look which; nothing is unbounded.
_INFEASIBLE = (
    mathopt.TerminationReason.INFEASIBLE,
    mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED,
)


def solve_highs(
    problem: IntegerProblem, limits: WorkLimits, hint: Mask
) -> SolverAnswer:
    """Solve a problem with HiGHS, relaxing bounds only if they conflict.

    Parameters
    ----------
    problem : IntegerProblem
        The problem.
    limits : WorkLimits
        Seconds on the clock, and the seed.
    hint : ndarray of bool, shape (C, E)
        An assignment within the budgets; returned if none is found in time.

    Returns
    -------
    SolverAnswer
        Who holds what, bound on the integer objective, and whether it is proved.
    """
    clock = time.perf_counter()
    strict = _HighsModel(problem, soft=False)
    answer = strict.run(limits, strict.gain, hint)
    if not strict.infeasible:
        return answer
    soft = _HighsModel(problem, soft=True)
    least = soft.run(_left(limits, clock), -soft.violation, hint)
    violation = problem.violation(least.matrix).total(problem.placement)
    soft.model.add_linear_constraint(soft.violation <= violation)
    best = soft.run(_left(limits, clock), soft.gain, least.matrix)
    return replace(best, proved=best.proved and least.proved)


def _left(limits: WorkLimits, clock: float) -> WorkLimits:
    used = time.perf_counter() - clock
    return replace(limits, seconds=max(limits.seconds - used, _LEAST_SECONDS))


class _HighsModel:
    """A problem in MathOpt's terms, and the two things one may optimise."""

    def __init__(self, problem: IntegerProblem, *, soft: bool) -> None:
        self.model = mathopt.Model()
        self.infeasible = False
        self._problem, self._soft = problem, soft
        self._where = np.nonzero(problem.allowed)
        self._pairs = [self.model.add_binary_variable() for _ in self._where[0]]
        missed = []
        for row in rows_of(problem):
            sum_of = self.model.add_linear_constraint(lb=row.low, ub=row.high)
            sign = 1.0 if row.high is None else -1.0
            for pair, number in zip(row.variables, row.coefficients, strict=True):
                sum_of.set_coefficient(self._pairs[pair], float(number))
            if soft and row.price:
                miss = self.model.add_variable(lb=0.0)
                sum_of.set_coefficient(miss, sign)
                missed.append(row.price * miss)
        # Gains of at most 1, by a power of two: floats of integers stay exact.
        self._unit = 2.0 ** np.frexp(float(problem.steepest_gain))[1]
        gains = (problem.gain[self._where] / self._unit).tolist()
        self.gain = mathopt.fast_sum(
            gain * pair for gain, pair in zip(gains, self._pairs, strict=True)
        )
        self.violation = mathopt.fast_sum(missed)

    def run(
        self, limits: WorkLimits, objective: mathopt.LinearExpression, hint: Mask
    ) -> SolverAnswer:
        """Maximise; what it finds, or the hint without a bound."""
        self.model.maximize(objective)
        parameters = mathopt.SolveParameters(
            time_limit=datetime.timedelta(seconds=min(limits.seconds, _MOST_SECONDS)),
            relative_gap_tolerance=_TOLERANCE,
            absolute_gap_tolerance=_TOLERANCE,
            random_seed=limits.seed,
        )
        result = mathopt.solve(self.model, mathopt.SolverType.HIGHS, params=parameters)
        reason = result.termination.reason
        self.infeasible = reason in _INFEASIBLE
        proved = reason == mathopt.TerminationReason.OPTIMAL
        note = "" if proved or self.infeasible else CLOCK
        matrix = np.zeros_like(hint)
        found = result.has_primal_feasible_solution()
        if found:
            matrix[self._where] = np.array(result.variable_values(self._pairs)) > 0.5
        if not found or not self._keeps_bounds(matrix):
            return SolverAnswer(matrix=hint, bound=None, proved=False, note=note)
        bound = result.termination.objective_bounds.dual_bound * self._unit
        whole = int(np.ceil(bound + _TOLERANCE * abs(bound)))
        return SolverAnswer(matrix=matrix, bound=whole, proved=proved, note=note)

    def _keeps_bounds(self, matrix: Mask) -> bool:
        """Whether bounds hold in integers, as they did in floats."""
        used = matrix @ self._problem.sizes
        kept = self._soft or not self._problem.violation(matrix).total(1)
        return bool(kept and (used <= self._problem.capacity).all())
