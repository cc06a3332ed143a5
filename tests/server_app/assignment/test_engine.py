"""Which solver runs, that it repeats, and what is refused."""

from __future__ import annotations

import doctest
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import server_app.assignment
from server_app.assignment import AssignmentProblem, limits, solve

ROOT = Path(__file__).resolve().parents[3]


def paper_case(seed: int = 0) -> AssignmentProblem:
    """FLEX-MoE's default round: C=20, E=8, k=2, delta=0.1 around 5 holders each."""
    rng = np.random.default_rng(seed)
    fitness = 0.5 + 1e-6 * rng.random((20, 8))
    known = rng.random((20, 8)) < 0.4
    fitness[known] = rng.random(known.sum())
    return AssignmentProblem(fitness, np.full(20, 2), np.full(8, 4), np.full(8, 6))


def large_case(clients: int = 400, **more: Any) -> AssignmentProblem:
    rng = np.random.default_rng(3)
    target = 2 * clients / 32
    arguments: dict[str, Any] = {
        "fitness": rng.random((clients, 32)),
        "capacity": np.full(clients, 2),
        "lower": np.full(32, 0.9 * target),
        "upper": np.full(32, 1.1 * target),
    }
    return AssignmentProblem(**(arguments | more))


@pytest.mark.parametrize("seed", range(5))
def test_flow_and_cp_sat_find_the_same_optimum_of_the_papers_case(seed: int) -> None:
    problem = paper_case(seed)
    chosen, program = solve(problem), solve(problem, "cp-sat")
    assert (chosen.solver, program.solver) == ("flow", "cp-sat")
    assert chosen.objective == program.objective == chosen.bound
    assert chosen.status == program.status == "optimal"
    # CP-SAT's answer is certified by prices of the experts as well.
    assert chosen.certified and program.certified
    assert chosen.objective == pytest.approx(
        (problem.fitness * chosen.matrix).sum(), abs=1e-7
    )


def test_auto_takes_flow_for_counts_with_layers_or_without() -> None:
    cases: list[dict[str, Any]] = [{}, {"groups": np.arange(32) % 2}]
    for more in cases:
        answer = solve(large_case(**more))
        assert (answer.solver, answer.certified) == ("flow", True)
        assert "flow is exact" in answer.reason
        assert (answer.matrix.sum(axis=1) == 2).all()


def test_equal_sizes_and_equal_weights_are_still_a_flow() -> None:
    plain = solve(large_case())
    same = solve(
        large_case(
            sizes=np.full(32, 700),
            capacity=np.full(400, 1500),
            load_weights=np.full(400, 2.5),
            lower=np.full(32, 2.5 * 22.5),
            upper=np.full(32, 2.5 * 27.5),
        )
    )
    assert same.solver == "flow"
    assert same.objective == plain.objective


@pytest.mark.parametrize(
    "more",
    [
        {"sizes": np.arange(100, 132), "capacity": np.full(400, 250)},
        {"load_weights": np.arange(1, 401), "lower": 4500, "upper": 5500},
    ],
    ids=["bytes", "weights"],
)
def test_auto_leaves_flow_where_flow_is_not_exact(more: dict[str, Any]) -> None:
    problem = large_case(**more)
    answer = solve(problem, time_limit=0.1)
    assert answer.solver == "highs"
    assert "not a flow" in answer.reason
    with pytest.raises(ValueError, match="solver 'flow' needs unit sizes"):
        solve(problem, "flow")


def test_unknown_solver_and_bad_limit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'cpsat': expected .*did you mean 'cp-sat'"):
        solve(paper_case(), "cpsat")
    with pytest.raises(ValueError, match="time_limit is 0: expected seconds > 0"):
        solve(paper_case(), time_limit=0)
    with pytest.raises(ValueError, match="seed is -1: expected >= 0"):
        solve(paper_case(), seed=-1)


def test_the_packages_example_is_true() -> None:
    assert doctest.testmod(server_app.assignment).failed == 0


def fingerprint() -> str:
    """Hash of the answers to one problem per solver path."""
    sizes = np.random.default_rng(4).integers(100, 900, 32)
    budget: dict[str, Any] = {"sizes": sizes, "capacity": np.full(120, 1100)}
    cases = [
        (paper_case(), "auto"),
        (large_case(), "flow"),
        (large_case(4000), "flow"),
        (large_case(4000, groups=np.arange(32) % 2), "flow"),
        (paper_case(), "cp-sat"),
        # Bounds that conflict, and too little time to prove how much: stopped by work.
        (large_case(120, **budget), "cp-sat"),
    ]
    digest = hashlib.sha256()
    for problem, solver in cases:
        # However busy the machine: counted work must end these runs, not the clock.
        with patch.object(limits, "_GUARD", 1000.0):
            answer = solve(problem, solver, seed=7, time_limit=1.0)
        digest.update(np.packbits(answer.matrix).tobytes())
        digest.update(repr((answer.objective, answer.bound, answer.solver)).encode())
    return digest.hexdigest()


def test_same_answer_twice_and_in_two_processes() -> None:
    here = fingerprint()
    assert fingerprint() == here
    code = "from tests.server_app.assignment.test_engine import fingerprint as f"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "99"}
    other = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(f())"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.split()[-1] == here


INTERRUPTED = """
import signal
from server_app.assignment import AssignmentProblem, solve
problem = AssignmentProblem(fitness=[[0.9]], capacity=[1], lower=1, upper=1)
solve(problem, solver="cp-sat")
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("told")
"""


def test_ctrl_c_after_a_solve_is_still_python_s() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "told\n"
