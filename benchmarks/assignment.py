"""Compare the assignment solvers side by side, on one machine in one run.

    python -m benchmarks.assignment            # everything, some ten minutes
    python -m benchmarks.assignment --quick    # the small problems, about a minute
    python -m benchmarks.assignment --large 1000000x256  # `solve` and its memory

For each problem every solver that can handle its size prints

- `seconds`: wall time, problem in arrays to certified answer, model building included;
- `cpu s`: CPU time of the process, the fairer figure on a shared machine;
- `gap %`: distance of its objective to the best bound any solver proved, relative. Not
  given for answers that miss bounds: their objective is not comparable;
- `below`: experts below their lower bound;
- `proof`: `certified` (prices prove it), `optimal` (the solver says so) or nothing.

Count problems have budgets of 1, 2 or 4 experts and loads within 10 % of their mean.
With `2 x 16` experts there are two layers, 3 experts of each to a client, who needs one
of each. In byte problems experts have random sizes and clients budgets of about 1.5,
2.5 or 4.5 of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from server_app.assignment import AssignmentProblem, solve
from server_app.assignment.flow.certified import certify
from server_app.assignment.flow.sparsified import solve_counted
from server_app.assignment.general.cp_sat import solve_cp_sat
from server_app.assignment.general.from_flow import assignment_by_counts
from server_app.assignment.general.highs import solve_highs
from server_app.assignment.integers import IntegerProblem
from server_app.assignment.limits import SolverAnswer, WorkLimits
from server_app.assignment.policies import greedy_top_k
from server_app.assignment.rounding import to_integers

COUNTS = ["20x8", "100x16", "1000x64", "10000x64", "10000x256", "100000x64"]
LAYERS = ["200x2x16", "1000x2x16", "10000x2x128"]
BYTES = ["100x16", "300x16", "1000x64"]
QUICK = {"20x8", "100x16", "300x16", "1000x64", "200x2x16", "1000x2x16"}
DELTA = 0.1
#: Pairs up to which the integer programs are tried.
MOST_PAIRS = 64_000


def draw_fitness(
    kind: str, clients: int, experts: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a fitness matrix: how much clients differ decides how hard it is."""
    noise = rng.random((clients, experts))
    if kind == "uniform":
        return noise
    if kind == "shared":  # everybody agrees on which experts are good
        return 0.7 * rng.random(experts) + 0.3 * noise
    # What FLEX-MoE has after a few rounds: most pairs untried at 0.5 +- 1e-6.
    tried = rng.random((clients, experts)) < 0.1
    score = np.clip(rng.normal(0.6, 0.2, (clients, experts)), 0.0, 1.0)
    learned: NDArray[np.float64] = np.where(
        tried, 0.35 + 0.3 * score, 0.5 + 1e-6 * noise
    )
    return learned


def draw_problem(size: str, kind: str, *, in_bytes: bool = False) -> AssignmentProblem:
    """Return the problem that ``size`` and ``kind`` name; always the same one."""
    clients, *shape = map(int, size.split("x"))
    experts, groups = int(np.prod(shape)), None
    rng = np.random.default_rng(0)
    fitness, sizes = draw_fitness(kind, clients, experts, rng), None
    if in_bytes:
        sizes = rng.integers(200_000, 1_000_000, experts)
        capacity = np.rint(sizes.mean() * rng.choice([1.5, 2.5, 4.5], clients))
        load = np.full(experts, capacity.sum() / sizes.sum())
    elif len(shape) > 1:
        capacity = np.full(clients, 3 * shape[0])
        groups = np.repeat(np.arange(shape[0]), shape[1])
        load = np.full(experts, capacity.sum() / experts)
    else:
        capacity = rng.choice([1, 2, 4], clients)
        load = np.full(experts, capacity.sum() / experts)
    lower, upper = np.floor((1 - DELTA) * load), np.ceil((1 + DELTA) * load)
    return AssignmentProblem(
        fitness, capacity, lower, upper, sizes=sizes, groups=groups
    )


Solver = Callable[[IntegerProblem, WorkLimits], SolverAnswer]


def top_k(problem: IntegerProblem, limits: WorkLimits) -> SolverAnswer:
    """Return the papers' greedy baseline, blind to loads and layers."""
    del limits
    held = greedy_top_k(problem.gain.astype(float), problem.capacity)
    return SolverAnswer(matrix=held, bound=None, proved=False)


def cp_sat_alone(problem: IntegerProblem, limits: WorkLimits) -> SolverAnswer:
    """Return what CP-SAT finds without a flow's answer to start from."""
    answer = solve_cp_sat(problem, limits, np.zeros_like(problem.allowed))
    if not problem.is_flow:
        return answer
    proof = certify(problem, answer.matrix)
    return SolverAnswer(
        matrix=answer.matrix,
        bound=proof.bound,
        proved=answer.proved,
        certified=proof.optimal,
    )


FLOW: dict[str, Solver] = {
    "flow, sparse": lambda problem, limits: solve_counted(problem, limits, True),
    "flow, full": lambda problem, limits: solve_counted(problem, limits, False),
}
PROGRAMS: dict[str, Solver] = {
    "CP-SAT alone": cp_sat_alone,
    "CP-SAT": lambda p, limits: solve_cp_sat(p, limits, assignment_by_counts(p)),
    "HiGHS": lambda p, limits: solve_highs(p, limits, assignment_by_counts(p)),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one solver did on one problem."""

    name: str
    seconds: float
    cpu: float
    value: float
    missed: int
    below: int
    bound: float
    proof: str


def measure(
    name: str, solver: Solver, asked: AssignmentProblem, limits: WorkLimits
) -> Line:
    """Run one solver on one problem."""
    wall, cpu = time.perf_counter(), time.process_time()
    problem = to_integers(asked)
    found = solver(problem, limits)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    missed = problem.violation(found.matrix)
    claimed = "optimal" if found.proved else ""
    return Line(
        name=name,
        seconds=wall,
        cpu=cpu,
        value=problem.value(found.matrix) / problem.scale,
        missed=missed.total(1),
        below=int((missed.short > 0).sum()),
        bound=np.inf if found.bound is None else found.bound / problem.scale,
        proof="certified" if found.certified else claimed,
    )


def compare(
    size: str,
    kind: str,
    solvers: dict[str, Solver],
    limits: WorkLimits,
    *,
    in_bytes: bool,
) -> None:
    """Print the table of one problem."""
    problem = draw_problem(size, kind, in_bytes=in_bytes)
    small = problem.fitness.size <= MOST_PAIRS
    chosen = {n: s for n, s in solvers.items() if small or n not in PROGRAMS}
    lines = [measure(n, s, problem, limits) for n, s in chosen.items()]
    best = min(x.bound for x in lines if not x.missed)
    print(f"\n{size}, {'bytes' if in_bytes else 'counts'}, {kind} fitness")
    print(f"  {'':14} {'seconds':>9} {'cpu s':>9} {'gap %':>9} {'below':>6}  proof")
    for x in lines:
        gap = "-" if x.missed else f"{100 * (best - x.value) / abs(best):.4f}"
        times = f"{x.seconds:9.3f} {x.cpu:9.3f}"
        print(f"  {x.name:14} {times} {gap:>9} {x.below:6d}  {x.proof}", flush=True)


def large(size: str, kind: str) -> None:
    """Solve one problem as a strategy would; print seconds and the process's peak."""
    problem = draw_problem(size, kind)
    own, wall, cpu = peak(), time.perf_counter(), time.process_time()
    answer = solve(problem)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    proof = "certified" if answer.certified else answer.status
    print(
        f"{size}, {kind} fitness: {cpu:.1f} s of CPU, {wall:.1f} s, peak {peak():.2f} "
        f"GB ({own:.2f} GB when drawn), {proof}, gap {answer.gap:.2g}; {answer.reason}",
        flush=True,
    )


def peak() -> float:
    """Return the most resident memory this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Parse the command line and print every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small problems only")
    parser.add_argument("--sizes", nargs="*", help="only these, e.g. 1000x64")
    parser.add_argument("--large", help="only this one, by `solve`, e.g. 1000000x64")
    parser.add_argument(
        "--fitness",
        nargs="*",
        choices=["uniform", "shared", "learned"],
        default=["uniform", "learned"],
        help="how fitness is distributed (default: uniform learned)",
    )
    parser.add_argument(
        "--time-limit", type=float, help="seconds (default 30, quick 5)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.large:
        for kind in options.fitness:
            large(options.large, kind)
        return
    limits = WorkLimits.of(
        options.time_limit or (5.0 if options.quick else 30.0), options.seed
    )
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"OR-Tools {version('ortools')}, NumPy {np.__version__}, "
        f"limit {limits.seconds:g} s"
    )
    # The first model of a process pays for loading libraries: not the solver's time.
    everything = {"greedy top-k": top_k, **FLOW, **PROGRAMS}
    for name, solver in everything.items():
        measure(name, solver, draw_problem("20x8", "uniform"), limits)

    families = ((COUNTS, everything, False), (LAYERS, everything, False))
    for sizes, solvers, in_bytes in (*families, (BYTES, PROGRAMS, True)):
        for size in sizes:
            if options.sizes and size not in options.sizes:
                continue
            if options.quick and size not in QUICK:
                continue
            for kind in options.fitness:
                compare(size, kind, solvers, limits, in_bytes=in_bytes)


if __name__ == "__main__":
    main()
