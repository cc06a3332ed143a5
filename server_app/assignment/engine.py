"""`solve`: choose a solver, run it, and say how good the answer is."""

from __future__ import annotations

import time

from server_app.assignment.cp_sat import solve_cp_sat
from server_app.assignment.rounding import compile_instance
from server_app.assignment.limits import Limits
from server_app.assignment.problem import AssignmentProblem
from server_app.assignment.solution import Assignment

__all__ = ["solve"]


def solve(
    problem: AssignmentProblem,
    solver: str = "auto",
    *,
    time_limit: float = 10.0,
    seed: int = 0,
) -> Assignment:
    """Find the best assignment of experts to clients."""
    clock = time.perf_counter()
    instance = compile_instance(problem)
    answer = solve_cp_sat(instance, Limits(seconds=time_limit, seed=seed))
    value = instance.value(answer.matrix)
    bound = value if answer.proved else answer.bound
    return Assignment(
        matrix=answer.matrix | instance.fixed,
        objective=value / instance.scale,
        bound=float("inf") if bound is None else bound / instance.scale,
        status="optimal" if answer.proved else "feasible",
        certified=False,
        solver="cp-sat",
        seconds=time.perf_counter() - clock,
        relaxed=(),
        reason="",
    )
