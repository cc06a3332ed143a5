"""The plain integer program, or its LP relaxation, in HiGHS.

The yardstick beside which `columns` and `cp_sat` are measured, and a third opinion in
the tests. On byte budgets its bound closes slowly (see :mod:`.columns`); `auto` never
chooses it.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass, replace

import numpy as np
from ortools.math_opt.python import mathopt

from server_app.assignment.instance import Instance, Mask
from server_app.assignment.limits import Answer, Limits
from server_app.assignment.statement import Statement, state

__all__ = ["solve_highs"]

#: HiGHS works in floats: what it calls optimal is optimal to this relative distance.
_TOLERANCE = 1e-9
_LEAST = 0.05


def solve_highs(instance: Instance, limits: Limits, *, integral: bool = True) -> Answer:
    """Solve the plain formulation with HiGHS.

    Parameters
    ----------
    instance : Instance
        The integer problem.
    limits : Limits
        Time limit in wall seconds: a run that hits it may not repeat exactly.
    integral : bool
        False solves the LP relaxation and rounds; exact for transportation problems.

    Returns
    -------
    Answer
        Bounds are relaxed, least violation first, only if they conflict.
    """
    clock = time.perf_counter()
    strict = _Program.build(instance, soft=False, integral=integral)
    answer = strict.run(instance, limits, strict.gain)
    if answer is not None:
        return answer
    soft = _Program.build(instance, soft=True, integral=integral)
    left = _remaining(limits, clock)
    least = soft.run(instance, left, -soft.violation)
    if least is None:
        return Answer(matrix=np.zeros_like(instance.free), bound=None, proved=False)
    violation = instance.violation(least.matrix).total(instance.placement_unit)
    soft.model.add_linear_constraint(soft.violation <= violation)
    left = _remaining(limits, clock)
    best = soft.run(instance, left, soft.gain)
    if best is None:
        return Answer(matrix=least.matrix, bound=None, proved=False)
    proved = best.proved and least.proved
    return Answer(matrix=best.matrix, bound=best.bound, proved=proved)


def _remaining(limits: Limits, clock: float) -> Limits:
    """Return what is left of the limit: HiGHS counts seconds, not work."""
    used = time.perf_counter() - clock
    return replace(limits, seconds=max(limits.seconds - used, _LEAST))


@dataclass(kw_only=True)
class _Program:
    """A statement in MathOpt's terms."""

    model: mathopt.Model
    statement: Statement
    variables: list[mathopt.Variable]
    gain: mathopt.LinearExpression
    violation: mathopt.LinearExpression

    @staticmethod
    def build(instance: Instance, *, soft: bool, integral: bool) -> _Program:
        """Translate an instance; with ``soft`` every relaxable row gets slack."""
        statement = state(instance, soft=soft)
        model = mathopt.Model()
        variables = [
            model.add_variable(lb=0.0, ub=1.0, is_integer=integral)
            for _ in statement.gains
        ]
        slack = []
        for row in statement.rows:
            # Bounds may be crossed, which one row with both is not allowed to be.
            for sign, bound in ((1.0, row.low), (-1.0, row.high)):
                if bound is None:
                    continue
                total = model.add_linear_constraint(lb=sign * bound)
                for index, number in zip(row.variables, row.coefficients, strict=True):
                    total.set_coefficient(variables[index], sign * number)
                if soft and row.worth:
                    missed = model.add_variable(lb=0.0)
                    total.set_coefficient(missed, 1.0)
                    slack.append(row.worth * missed)
        gain = mathopt.fast_sum(
            number / instance.scale * variable
            for number, variable in zip(statement.gains, variables, strict=True)
        )
        return _Program(
            model=model,
            statement=statement,
            variables=variables,
            gain=gain + statement.constant / instance.scale,
            violation=mathopt.fast_sum(slack),
        )

    def run(
        self, instance: Instance, limits: Limits, objective: mathopt.LinearExpression
    ) -> Answer | None:
        """Maximise; None when it yields no valid assignment."""
        self.model.maximize(objective)
        parameters = mathopt.SolveParameters(
            time_limit=datetime.timedelta(seconds=limits.seconds),
            relative_gap_tolerance=_TOLERANCE,
            absolute_gap_tolerance=_TOLERANCE,
            random_seed=limits.seed,
        )
        result = mathopt.solve(self.model, mathopt.SolverType.HIGHS, params=parameters)
        if not result.has_primal_feasible_solution():
            return None
        pairs = self.variables[: len(self.statement.clients)]
        matrix: Mask = np.zeros_like(instance.free)
        values = np.array(result.variable_values(pairs))
        matrix[self.statement.clients, self.statement.experts] = values > 0.5
        if not instance.is_valid(matrix):
            return None
        bound = result.termination.objective_bounds.dual_bound * instance.scale
        optimal = result.termination.reason == mathopt.TerminationReason.OPTIMAL
        whole = None
        if np.isfinite(bound):
            whole = int(np.ceil(bound + _TOLERANCE * abs(bound)))
        return Answer(matrix=matrix, bound=whole, proved=optimal)
