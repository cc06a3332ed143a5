"""`solve` and `explain`: choose a solver, run it, say how good the answer is.

The registry `SOLVERS` and the rules of ``"auto"`` live here; no algorithm does.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from server_app.assignment.certificate import certify
from server_app.assignment.columns import solve_columns
from server_app.assignment.cp_sat import solve_cp_sat
from server_app.assignment.fairness import feasibility_of, max_min_floor
from server_app.assignment.greedy import solve_greedy
from server_app.assignment.instance import Instance, Mask
from server_app.assignment.limits import Answer, Limits
from server_app.assignment.mip import solve_highs
from server_app.assignment.problem import AssignmentProblem
from server_app.assignment.relax import explain_violation, relaxations
from server_app.assignment.rounding import compile_instance
from server_app.assignment.solution import Assignment, Infeasibility
from server_app.assignment.sparsify import solve_transport

__all__ = ["SOLVERS", "explain", "solve"]

#: Free pairs up to which CP-SAT, the method's own solver, goes alone: it proves the
#: optimum in a fraction of a second.
_SMALL = 500
#: Free pairs up to which CP-SAT gets the rest of the time after column generation, or
#: only a brief share of it when the gap is this close already.
_MEDIUM = 20_000
_CLOSE = 5e-4
_BRIEF = 0.1


def solve(
    problem: AssignmentProblem,
    solver: str = "auto",
    *,
    time_limit: float = 10.0,
    seed: int = 0,
) -> Assignment:
    """Find the best assignment of experts to clients.

    A problem whose bounds conflict is relaxed, never refused: budgets, forbidden pairs
    and exclusions always hold, every other bound is missed by as little as possible in
    total (one unit is one placement, or the mean client weight for weighted loads),
    and only then is the objective maximised. What was missed is in ``relaxed``.

    Parameters
    ----------
    problem : AssignmentProblem
        The problem.
    solver : str
        ``"auto"``, or a key of `SOLVERS`: ``"flow"`` (exact, transportation problems
        only), ``"cp-sat"`` (exact, any problem of moderate size), ``"columns"`` (near
        optimal with a bound, any size), ``"highs"`` (plain integer program),
        ``"greedy"``.
    time_limit : float
        Seconds of work on one free core. Solvers count work rather than time, so that
        the same input gives the same answer, and stop early when done; the clock cuts
        in at four times the limit. Flow needs no limit and ignores it.
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
        If the solver is unknown or cannot express the problem, the limit is not
        positive or the seed is negative.
    """
    clock = time.perf_counter()
    if not time_limit > 0:
        raise ValueError(f"time_limit is {time_limit}: expected seconds > 0")
    if seed < 0:
        raise ValueError(f"seed is {seed}: expected >= 0")
    limits = Limits.of(time_limit, seed)
    instance = compile_instance(problem)
    name, why = _choose(instance, solver)
    run = SOLVERS[name]
    if isinstance(problem.floor, str):
        instance = max_min_floor(instance, lambda trial: run(trial, limits).matrix)
    answer = _checked(
        instance, run(instance, limits.after(time.perf_counter() - clock))
    )
    if solver == "auto" and instance.is_flow and not answer.certified:
        name, why = "flow", f"{why}; not proved in time, so flow"
        answer = _checked(instance, solve_transport(instance, limits))
    value = instance.value(answer.matrix)
    bound = np.inf if answer.bound is None else max(answer.bound, value)
    proved = answer.proved or answer.certified
    return Assignment(
        matrix=answer.matrix | instance.fixed,
        objective=value / instance.scale,
        bound=(value if answer.certified else float(bound)) / instance.scale,
        status="optimal" if proved else "feasible",
        certified=answer.certified,
        solver=name,
        seconds=time.perf_counter() - clock,
        relaxed=relaxations(instance, answer.matrix),
        reason=f"{why}; {answer.note}" if answer.note else why,
        infeasibility=explain_violation(instance, answer.matrix),
    )


def explain(
    problem: AssignmentProblem, *, time_limit: float = 10.0, seed: int = 0
) -> Infeasibility | None:
    """Say whether every bound can be met, and if not, which conflict and by how much.

    Parameters
    ----------
    problem : AssignmentProblem
        The problem; fitness plays no part.
    time_limit : float
        Seconds, as for `solve`.
    seed : int
        Seed of the solver, >= 0.

    Returns
    -------
    Infeasibility or None
        None when some assignment meets every bound.
    """
    blank = feasibility_of(compile_instance(problem))
    name, _ = _choose(blank, "auto")
    answer = SOLVERS[name](blank, Limits.of(time_limit, seed))
    return explain_violation(blank, answer.matrix)


def _choose(instance: Instance, solver: str) -> tuple[str, str]:
    """Return the solver to run and why."""
    if solver != "auto":
        if solver not in SOLVERS:
            near = difflib.get_close_matches(solver, ["auto", *SOLVERS], n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            known = ", ".join(["auto", *SOLVERS])
            raise ValueError(f"solver is {solver!r}: expected one of {known}{hint}")
        if solver == "flow" and not instance.is_flow:
            raise ValueError(
                "solver 'flow' needs unit sizes, counted loads and no exclusive sets, "
                "groups or weighted minimum holders: use 'auto'"
            )
        return solver, "asked for"
    pairs = int(instance.free.sum())
    if pairs <= _SMALL:
        return "cp-sat", f"{pairs} free pairs: CP-SAT proves the optimum, as FLEX-MoE"
    if instance.is_flow:
        return "flow", f"{pairs} free pairs of a transportation problem: flow is exact"
    return "columns", f"{pairs} free pairs, not a flow: column generation scales"


def _checked(instance: Instance, answer: Answer) -> Answer:
    """Certify what can be certified, and return nothing invalid or beaten by greedy."""
    if not instance.is_valid(answer.matrix):
        matrix = np.zeros_like(instance.free)
        note = "the solver's answer broke a budget and was dropped"
        answer = Answer(matrix=matrix, bound=None, proved=False, note=note)
    if instance.is_flow and not answer.certified:
        proof = certify(instance, answer.matrix)
        known = proof.bound if answer.bound is None else answer.bound
        tight = min(proof.bound, known)
        answer = replace(answer, certified=proof.optimal, bound=tight)
    if answer.proved or answer.certified:
        return answer
    greedy = solve_greedy(instance)
    if _rank(instance, greedy) < _rank(instance, answer.matrix):
        # A bound holds for the violation it was found at.
        same = _rank(instance, greedy)[0] == _rank(instance, answer.matrix)[0]
        bound = answer.bound if same else None
        note = "greedy found better"
        return Answer(matrix=greedy, bound=bound, proved=False, note=note)
    return answer


def _rank(instance: Instance, matrix: Mask) -> tuple[int, int]:
    """Order matrices by violation, then by objective."""
    missed = instance.violation(matrix).total(instance.placement_unit)
    return missed, -instance.value(matrix)


def _hinted_cp_sat(instance: Instance, limits: Limits) -> Answer:
    """CP-SAT, told the flow's or the column generation's answer when it is large."""
    pairs = int(instance.free.sum())
    if pairs <= _SMALL:
        return solve_cp_sat(instance, limits)
    clock = time.perf_counter()
    if instance.is_flow:
        start = solve_transport(instance, limits)
    else:
        start = solve_columns(instance, limits.part(0.5))
    return _improved(instance, start, limits.after(time.perf_counter() - clock))


def _columns_then_cp_sat(instance: Instance, limits: Limits) -> Answer:
    """Column generation; CP-SAT as well where it leaves a gap or a bound unmet."""
    clock = time.perf_counter()
    if int(instance.free.sum()) > _MEDIUM:
        return solve_columns(instance, limits)
    answer = solve_columns(instance, limits.part(0.5))
    left = limits.after(time.perf_counter() - clock)
    if answer.proved:
        return answer
    missed = instance.violation(answer.matrix).total(1)
    value = instance.value(answer.matrix)
    close = answer.bound is not None and answer.bound - value <= _CLOSE * abs(value)
    if close and not missed:
        return _improved(instance, answer, left.part(_BRIEF))
    return _improved(instance, answer, left)


def _improved(instance: Instance, start: Answer, limits: Limits) -> Answer:
    """Let CP-SAT improve on an answer, or prove it."""
    found = solve_cp_sat(instance, limits, start.matrix, start.bound)
    better = _rank(instance, found.matrix) < _rank(instance, start.matrix)
    did = "improved the hint" if better else "found nothing better than the hint"
    if found.proved:
        did += ", proved"
    notes = (start.note, f"CP-SAT {did}", found.note)
    return replace(
        _tighter(instance, found, start), note="; ".join(note for note in notes if note)
    )


def _tighter(instance: Instance, first: Answer, second: Answer) -> Answer:
    """Return the better answer, with the smaller bound if both speak of the same."""
    ranks = _rank(instance, first.matrix), _rank(instance, second.matrix)
    better, other = (first, second) if ranks[0] <= ranks[1] else (second, first)
    if ranks[0][0] != ranks[1][0] or other.bound is None:
        return better
    bound = other.bound if better.bound is None else min(better.bound, other.bound)
    proved = better.proved or (
        not ranks[0][0] and bound <= instance.value(better.matrix)
    )
    return replace(better, bound=bound, proved=proved)


def _greedy(instance: Instance, limits: Limits) -> Answer:
    del limits
    return Answer(matrix=solve_greedy(instance), bound=None, proved=False)


#: Name to solver. Each takes the integer instance and its limits.
SOLVERS: dict[str, Callable[[Instance, Limits], Answer]] = {
    "flow": solve_transport,
    "cp-sat": _hinted_cp_sat,
    "columns": _columns_then_cp_sat,
    "highs": solve_highs,
    "greedy": _greedy,
}
