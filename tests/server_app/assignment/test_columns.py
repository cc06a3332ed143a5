"""Column generation: the client's subproblem exactly, and byte budgets at size."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.assignment import AssignmentProblem, solve
from server_app.assignment.oracle import Oracle
from server_app.assignment.rounding import compile_instance

PRICE = 10_000


def every_column(experts: int) -> list[tuple[int, ...]]:
    sizes = range(experts + 1)
    return [c for size in sizes for c in combinations(range(experts), size)]


@given(
    worth=st.lists(st.integers(-50, 50), min_size=5, max_size=5),
    sizes=st.lists(st.integers(1, 6), min_size=5, max_size=5),
    room=st.integers(0, 12),
    exclusive=st.sampled_from([[], [[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], [2, 3, 4]]]),
)
@settings(max_examples=150)
def test_a_clients_knapsack_is_exact(
    worth: list[int], sizes: list[int], room: int, exclusive: list[list[int]]
) -> None:
    problem = AssignmentProblem(
        np.ones((1, 5)), [room], 0, 1, sizes=sizes, exclusive=exclusive
    )
    choice = Oracle(compile_instance(problem), PRICE).choose(0, np.array(worth))
    best = max(
        sum(worth[e] for e in column)
        for column in every_column(5)
        if sum(sizes[e] for e in column) <= room
        and all(sum(e in column for e in members) <= 1 for members in exclusive)
    )
    assert choice.bound == best
    assert sum(worth[e] for e in choice.column) == best


@given(
    worth=st.lists(st.integers(-50, 50), min_size=5, max_size=5),
    room=st.integers(0, 5),
    floor=st.integers(0, 4),
    groups=st.lists(st.integers(0, 2), min_size=5, max_size=5),
)
@settings(max_examples=150)
def test_a_clients_floor_and_groups_are_exact_for_count_budgets(
    worth: list[int], room: int, floor: int, groups: list[int]
) -> None:
    problem = AssignmentProblem(
        np.ones((1, 5)), [room], 0, 1, floor=[floor], groups=groups
    )
    choice = Oracle(compile_instance(problem), PRICE).choose(0, np.array(worth))

    def value(column: tuple[int, ...]) -> int:
        missed = max(floor - len(column), 0)
        missed += len(set(groups) - {groups[e] for e in column})
        return sum(worth[e] for e in column) - PRICE * missed

    best = max(value(column) for column in every_column(5) if len(column) <= room)
    assert value(choice.column) == best
    assert choice.bound == best


def byte_problem(clients: int, experts: int, **more: Any) -> AssignmentProblem:
    rng = np.random.default_rng(clients)
    sizes = rng.integers(200_000, 1_000_000, experts)
    capacity = np.rint(sizes.mean() * rng.choice([1.5, 2.5, 4.5], clients))
    load = capacity.sum() / sizes.sum()
    return AssignmentProblem(
        rng.random((clients, experts)),
        capacity,
        np.full(experts, 0.9 * load),
        np.full(experts, 1.1 * load),
        sizes=sizes,
        **more,
    )


@pytest.mark.parametrize(
    "more",
    [{}, {"exclusive": [[0, 1, 2]]}, {"floor": 1, "load_penalty": 0.01}],
    ids=["plain", "exclusive", "floor and penalty"],
)
def test_byte_budgets_are_close_to_the_bound_and_valid(more: dict[str, Any]) -> None:
    problem = byte_problem(120, 12, **more)
    answer = solve(problem, "columns")
    assert problem.sizes is not None
    assert (answer.matrix @ problem.sizes <= problem.capacity).all()
    load = answer.matrix.sum(axis=0)
    assert (np.ceil(problem.lower) <= load).all()
    assert (load <= np.floor(problem.upper)).all()
    assert answer.relaxed == ()
    assert 0.0 <= answer.gap < 0.005


def test_data_weighted_loads_keep_their_band() -> None:
    rng = np.random.default_rng(1)
    samples = rng.integers(50, 900, 150)
    mean = 2 * samples.sum() / 12
    problem = AssignmentProblem(
        rng.random((150, 12)),
        [2] * 150,
        np.full(12, 0.95 * mean),
        np.full(12, 1.05 * mean),
        load_weights=samples,
    )
    answer = solve(problem)
    load = problem.load(answer.matrix)
    assert ((0.95 * mean <= load) & (load <= 1.05 * mean)).all()
    assert answer.gap < 1e-3


def test_one_expert_of_every_layer_on_every_client() -> None:
    # Four layers of six experts, two per layer on average.
    rng = np.random.default_rng(2)
    layer = np.repeat(np.arange(4), 6)
    problem = AssignmentProblem(rng.random((100, 24)), [8] * 100, 25, 42, groups=layer)
    answer = solve(problem)
    for number in range(4):
        assert answer.matrix[:, layer == number].any(axis=1).all()
    assert answer.gap < 1e-3
