"""`solve`: choose a solver, run it, say how good the answer is.

The registry `SOLVERS` and the rule of ``"auto"`` live here; no algorithm does.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from server_app.assignment.flow.certified import certify
from server_app.assignment.flow.sparsified import solve_counted
from server_app.assignment.general.from_flow import assignment_by_counts
from server_app.assignment.general.highs import solve_highs
from server_app.assignment.integers import IntegerProblem, Mask
from server_app.assignment.limits import SolverAnswer, WorkLimits
from server_app.assignment.problem import AssignmentProblem
from server_app.assignment.relaxed import relaxations
from server_app.assignment.rounding import to_integers
from server_app.assignment.solution import Assignment

__all__ = ["SOLVERS", "solve"]


def solve(
    problem: AssignmentProblem,
    solver: str = "auto",
    *,
    time_limit: float = 10.0,
    seed: int = 0,
) -> Assignment:
    """Find the best assignment of experts to clients.

    A problem whose bounds conflict is relaxed, never refused: budgets and forbidden
    pairs always hold, every other bound is missed by as little as possible in total
    (one unit is one placement, or the mean client weight for weighted loads), and only
    then is the objective maximised. What was missed is in ``relaxed``.

    Parameters
    ----------
    problem : AssignmentProblem
        The problem.
    solver : str
        A key of `SOLVERS`: ``"flow"`` (exact and certified where sizes and loads are
        counts, at any size), ``"cp-sat"`` and ``"highs"`` (any problem of moderate
        size). ``"auto"`` is flow where it is exact, else HiGHS.
    time_limit : float
        Seconds on one free core; flow needs no limit and ignores it. CP-SAT counts work
        rather than time, so that the same input gives the same answer, and the clock
        cuts in at four times the limit. HiGHS goes by the clock. Both stop early when
        done.
    seed : int
        Seed of the solver, >= 0.

    Returns
    -------
    Assignment
        Same input, same answer, in any process, unless the clock cut a solver off;
        then ``reason`` says so.

    Raises
    ------
    ValueError
        If the solver is unknown or cannot express the problem, its numbers are too
        large or too far apart, the limit is not positive or the seed is negative.
    """
    clock = time.perf_counter()
    if not 0 < time_limit < np.inf:
        raise ValueError(f"time_limit is {time_limit}: expected seconds > 0")
    if seed < 0:
        raise ValueError(f"seed is {seed}: expected >= 0")
    integers = to_integers(problem)
    name, why = _choose(integers, solver)
    limits = WorkLimits.of(time_limit, seed).after(time.perf_counter() - clock)
    answer = SOLVERS[name](integers, limits)
    if integers.is_flow and not answer.certified:
        proof = certify(integers, answer.matrix)
        known = proof.bound if answer.bound is None else answer.bound
        tight = min(proof.bound, known)
        answer = replace(answer, certified=proof.optimal, bound=tight)
    value = integers.value(answer.matrix)
    bound = np.inf if answer.bound is None else max(answer.bound, value)
    return Assignment(
        matrix=answer.matrix,
        objective=value / integers.scale,
        bound=bound / integers.scale,
        precision=integers.precision,
        status="optimal" if answer.proved or answer.certified else "feasible",
        certified=answer.certified,
        solver=name,
        seconds=time.perf_counter() - clock,
        relaxed=relaxations(integers, answer.matrix),
        reason="; ".join(part for part in (why, answer.note) if part),
    )


def _choose(problem: IntegerProblem, solver: str) -> tuple[str, str]:
    """Return the solver's name and why it was chosen."""
    if solver not in ("auto", *SOLVERS):
        names = ["auto", *SOLVERS]
        near = difflib.get_close_matches(solver, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"solver is {solver!r}: expected one of {', '.join(names)}{hint}"
        )
    if problem.is_flow:
        why = "sizes and loads are counts: flow is exact"
        return ("flow", why) if solver == "auto" else (solver, "")
    if solver == "flow":
        raise ValueError(
            "solver 'flow' needs unit sizes and counted loads: choose auto or cp-sat"
        )
    why = "not a flow: byte sizes or weighted loads"
    return ("highs", why) if solver == "auto" else (solver, "")


def _solve_cp_sat(
    problem: IntegerProblem, limits: WorkLimits, hint: Mask
) -> SolverAnswer:
    # Late: CP-SAT's interface brings in pandas, a second of processor time that no
    # round spends where flow is exact.
    from server_app.assignment.general.cp_sat import solve_cp_sat

    return solve_cp_sat(problem, limits, hint)


def _from_flow(
    solve_general: Callable[[IntegerProblem, WorkLimits, Mask], SolverAnswer],
) -> Callable[[IntegerProblem, WorkLimits], SolverAnswer]:
    """Return the solver with the flow's answer to start from."""
    return lambda problem, limits: solve_general(
        problem, limits, assignment_by_counts(problem)
    )


#: Name to solver. Each takes the integer problem and its limits.
SOLVERS: dict[str, Callable[[IntegerProblem, WorkLimits], SolverAnswer]] = {
    "flow": solve_counted,
    "cp-sat": _from_flow(_solve_cp_sat),
    "highs": _from_flow(solve_highs),
}
