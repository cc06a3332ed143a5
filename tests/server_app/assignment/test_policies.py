"""The solver-free policies against assignments worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.assignment.policies import greedy_top_k, random_k, round_robin

budgets = st.lists(st.integers(0, 7), min_size=1, max_size=8)


def test_greedy_takes_the_fittest_and_the_lower_index_on_ties() -> None:
    fitness = [[0.1, 0.9, 0.5, 0.9], [0.2, 0.2, 0.2, 0.2], [0.0, 0.0, 0.0, 1.0]]
    held = greedy_top_k(fitness, [2, 2, 0])
    assert held.astype(int).tolist() == [[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_greedy_refuses_rows_without_capacity() -> None:
    with pytest.raises(ValueError, match=r"expected \(1, E\)"):
        greedy_top_k([[0.1], [0.2]], [1])


def test_round_robin_lays_budgets_end_to_end_and_turns_by_one() -> None:
    assert round_robin([2, 1, 2], 4, 0).astype(int).tolist() == [
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [1, 0, 0, 1],
    ]
    assert round_robin([2, 1, 2], 4, 1).astype(int).tolist() == [
        [0, 1, 1, 0],
        [0, 0, 0, 1],
        [1, 1, 0, 0],
    ]


@given(capacity=budgets, experts=st.integers(1, 6), start=st.integers(0, 50))
def test_round_robin_is_balanced_in_a_round_and_even_over_a_cycle(
    capacity: list[int], experts: int, start: int
) -> None:
    cycle = [round_robin(capacity, experts, start + t) for t in range(experts)]
    held = np.minimum(capacity, experts)
    for matrix in cycle:
        assert (matrix.sum(axis=1) == held).all()
        assert np.ptp(matrix.sum(axis=0)) <= 1
    met = np.sum(cycle, axis=0)
    assert (met == held[:, None]).all()


@given(capacity=budgets, experts=st.integers(1, 6), seed=st.integers(0, 99))
def test_random_k_fills_budgets_and_repeats(
    capacity: list[int], experts: int, seed: int
) -> None:
    first = random_k(capacity, experts, np.random.default_rng(seed))
    again = random_k(capacity, experts, np.random.default_rng(seed))
    assert (first == again).all()
    assert (first.sum(axis=1) == np.minimum(capacity, experts)).all()


def test_random_k_is_uniform_over_experts() -> None:
    held = random_k(np.full(8000, 2), 8, np.random.default_rng(0))
    # 2000 expected, standard deviation sqrt(8000 / 4 * 3 / 4) = 39.
    assert np.abs(held.sum(axis=0) - 2000).max() < 4 * 39


def test_a_bad_capacity_is_named() -> None:
    named = r"capacity of client 1 is -1\.0"
    with pytest.raises(ValueError, match=named):
        random_k([1, -1], 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match=named):
        round_robin([1, -1], 4, 0)
    with pytest.raises(ValueError, match=named):
        greedy_top_k(np.zeros((2, 4)), [1, -1])
