"""Compare the assignment solvers side by side, on one machine in one run.

    python -m benchmarks.assignment            # everything, some 20 minutes
    python -m benchmarks.assignment --quick    # the small instances, about a minute

For each instance every solver that can handle its size prints

- `seconds`: wall time, problem in arrays to certified answer, model building included;
- `cpu s`: CPU time of the process, the fairer figure on a shared machine;
- `gap %`: distance of its objective to the best bound any solver proved, relative. Not
  given for answers that miss bounds: their objective is not comparable;
- `below`: experts below their lower bound;
- `proof`: `certified` (prices prove it), `optimal` (the solver says so) or nothing.

Unit instances are transportation problems: budgets of 1, 2 or 4 experts, loads within
10 % of their mean. In byte instances experts have random sizes and clients budgets of
about 1.5, 2.5 or 4.5 of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from server_app.assignment import AssignmentProblem, solve
from server_app.assignment.certificate import certify
from server_app.assignment.cp_sat import solve_cp_sat
from server_app.assignment.instance import Instance
from server_app.assignment.limits import Answer, Limits
from server_app.assignment.mip import solve_highs
from server_app.assignment.policies import greedy_top_k
from server_app.assignment.rounding import compile_instance
from server_app.assignment.sparsify import solve_transport

UNIT = ["20x8", "100x16", "1000x64", "10000x64", "10000x256", "100000x64"]
BYTES = ["100x16", "300x16", "1000x64"]
QUICK = {"20x8", "100x16", "300x16", "1000x64"}
DELTA = 0.1


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


def draw_problem(size: str, kind: str, *, in_bytes: bool) -> AssignmentProblem:
    """Return the instance that ``size`` and ``kind`` name; always the same one."""
    clients, experts = map(int, size.split("x"))
    rng = np.random.default_rng(0)
    fitness = draw_fitness(kind, clients, experts, rng)
    if in_bytes:
        sizes = rng.integers(200_000, 1_000_000, experts)
        capacity = np.rint(sizes.mean() * rng.choice([1.5, 2.5, 4.5], clients))
        load = np.full(experts, capacity.sum() / sizes.sum())
    else:
        sizes = None
        capacity = rng.choice([1, 2, 4], clients)
        load = np.full(experts, capacity.sum() / experts)
    lower, upper = np.floor((1 - DELTA) * load), np.ceil((1 + DELTA) * load)
    return AssignmentProblem(fitness, capacity, lower, upper, sizes=sizes)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a solver hands back: a matrix, its bound in fitness, what proves it."""

    matrix: NDArray[np.bool_]
    bound: float = np.inf
    proof: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One solver in the comparison, and the largest instance it is tried on."""

    name: str
    run: Callable[[AssignmentProblem, Limits], Outcome]
    most_pairs: int = 10**9


def by_name(name: str) -> Callable[[AssignmentProblem, Limits], Outcome]:
    """Return `solve` with one solver, as a user would call it."""

    def run(problem: AssignmentProblem, limits: Limits) -> Outcome:
        found = solve(problem, name, time_limit=limits.seconds, seed=limits.seed)
        claimed = "optimal" if found.status == "optimal" else ""
        proof = "certified" if found.certified else claimed
        return Outcome(matrix=found.matrix, bound=found.bound, proof=proof)

    return run


def directly(
    solver: Callable[[Instance, Limits], Answer],
) -> Callable[[AssignmentProblem, Limits], Outcome]:
    """Return a solver that is not in the registry."""

    def run(problem: AssignmentProblem, limits: Limits) -> Outcome:
        instance = compile_instance(problem)
        answer = solver(instance, limits)
        bound = np.inf if answer.bound is None else answer.bound / instance.scale
        claimed = "optimal" if answer.proved else ""
        proof = "certified" if answer.certified else claimed
        return Outcome(matrix=answer.matrix, bound=bound, proof=proof)

    return run


def top_k(problem: AssignmentProblem, limits: Limits) -> Outcome:
    """Return the papers' greedy baseline, blind to loads."""
    del limits
    return Outcome(matrix=greedy_top_k(problem.fitness, problem.capacity))


def linear_program(instance: Instance, limits: Limits) -> Answer:
    """Return HiGHS' vertex of the LP relaxation, integral for unit sizes."""
    answer = solve_highs(instance, limits, integral=False)
    proof = certify(instance, answer.matrix)
    return Answer(
        matrix=answer.matrix,
        bound=proof.bound,
        proved=proof.optimal,
        certified=proof.optimal,
    )


FULL = Entry(name="flow, full", run=directly(lambda i, w: solve_transport(i, w, False)))
SPARSE = Entry(
    name="flow, sparse", run=directly(lambda i, w: solve_transport(i, w, True))
)
DEFAULT = Entry(
    name="CP-SAT, defaults",
    run=directly(lambda i, w: solve_cp_sat(i, w, tuned=False)),
    most_pairs=64_000,
)
USED = Entry(name="CP-SAT, as used here", run=by_name("cp-sat"), most_pairs=64_000)
UNIT_SOLVERS = [
    Entry(name="greedy top-k", run=top_k),
    Entry(name="greedy within bounds", run=by_name("greedy"), most_pairs=3_000_000),
    Entry(name="auto", run=by_name("auto")),
    SPARSE,
    FULL,
    Entry(name="HiGHS LP", run=directly(linear_program), most_pairs=64_000),
    DEFAULT,
    USED,
]
BYTE_SOLVERS = [
    Entry(name="greedy within bounds", run=by_name("greedy")),
    Entry(name="auto", run=by_name("auto")),
    Entry(name="HiGHS MIP", run=by_name("highs")),
    DEFAULT,
    USED,
]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one solver did on one instance."""

    name: str
    seconds: float
    cpu: float
    value: float
    missed: int
    below: int
    bound: float
    proof: str


def measure(entry: Entry, problem: AssignmentProblem, limits: Limits) -> Line:
    """Run one solver on one instance."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = entry.run(problem, limits)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    instance = compile_instance(problem)
    missed = instance.violation(found.matrix)
    return Line(
        name=entry.name,
        seconds=wall,
        cpu=cpu,
        value=instance.value(found.matrix) / instance.scale,
        missed=missed.total(1),
        below=int((missed.short > 0).sum()),
        bound=found.bound,
        proof=found.proof,
    )


def compare(
    size: str, kind: str, entries: list[Entry], limits: Limits, *, in_bytes: bool
) -> None:
    """Print the table of one instance."""
    problem = draw_problem(size, kind, in_bytes=in_bytes)
    pairs = problem.num_clients * problem.num_experts
    lines = [measure(e, problem, limits) for e in entries if pairs <= e.most_pairs]
    best = min(x.bound for x in lines if not x.missed)
    print(f"\n{size}, {'bytes' if in_bytes else 'unit'}, {kind} fitness")
    print(f"  {'':22} {'seconds':>9} {'cpu s':>9} {'gap %':>9} {'below':>6}  proof")
    for x in lines:
        gap = "-" if x.missed else f"{100 * (best - x.value) / abs(best):.4f}"
        times = f"{x.seconds:9.3f} {x.cpu:9.3f}"
        print(f"  {x.name:22} {times} {gap:>9} {x.below:6d}  {x.proof}", flush=True)


def main() -> None:
    """Parse the command line and print every table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small instances only")
    parser.add_argument("--sizes", nargs="*", help="only these, e.g. 1000x64")
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
    limits = Limits.of(
        options.time_limit or (5.0 if options.quick else 30.0), options.seed
    )
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"OR-Tools {version('ortools')}, NumPy {np.__version__}, "
        f"limit {limits.seconds:g} s"
    )
    # The first model of a process pays for loading libraries: not the solver's time.
    warm = draw_problem("20x8", "uniform", in_bytes=True)
    for name in ("auto", "highs", "columns"):
        solve(warm, name)

    families = ((UNIT, UNIT_SOLVERS, False), (BYTES, BYTE_SOLVERS, True))
    for sizes, entries, in_bytes in families:
        for size in sizes:
            if options.sizes and size not in options.sizes:
                continue
            if options.quick and size not in QUICK:
                continue
            for kind in options.fitness:
                compare(size, kind, entries, limits, in_bytes=in_bytes)


if __name__ == "__main__":
    main()
