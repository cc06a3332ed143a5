"""FLEX-MoE's fitness matrix against hand-computed numbers (METHODS 1)."""

import numpy as np
import pytest

from server_app.fitness import (
    accuracy_score,
    grown,
    initial_fitness,
    loss_score,
    update_fitness,
)


def test_only_assigned_pairs_move() -> None:
    fitness = np.full((2, 3), 0.5)
    update_fitness(fitness, client=1, experts=[0, 2], score=[1.0, 0.0], rate=0.3)
    # 0.7 * 0.5 + 0.3 * 1 = 0.65; 0.7 * 0.5 + 0.3 * 0 = 0.35
    np.testing.assert_allclose(fitness, [[0.5, 0.5, 0.5], [0.65, 0.5, 0.35]])


def test_two_rounds_are_an_exponential_average() -> None:
    fitness = np.array([[0.5]])
    update_fitness(fitness, 0, [0], [0.9], 0.3)
    update_fitness(fitness, 0, [0], [0.1], 0.3)
    # 0.7 * (0.7 * 0.5 + 0.3 * 0.9) + 0.3 * 0.1
    assert fitness[0, 0] == pytest.approx(0.464)


def test_no_expert_used_changes_nothing() -> None:
    fitness = np.full((1, 2), 0.5)
    update_fitness(fitness, 0, [], [], 0.3)
    np.testing.assert_array_equal(fitness, [[0.5, 0.5]])


def test_loss_score_is_exp_of_minus_scaled_loss() -> None:
    np.testing.assert_allclose(loss_score([0.0, np.log(2)], scale=2.0), [1.0, 0.25])


def test_accuracy_score_is_the_accuracy() -> None:
    np.testing.assert_array_equal(accuracy_score([0.2, 1.0]), [0.2, 1.0])


def test_initial_fitness_is_half_with_a_small_seeded_tie_break() -> None:
    first = initial_fitness(4, 8, seed=7)
    assert np.all((first >= 0.5) & (first <= 0.5 + 1e-6))
    assert len(np.unique(first)) == first.size
    np.testing.assert_array_equal(first, initial_fitness(4, 8, seed=7))
    assert not np.array_equal(first, initial_fitness(4, 8, seed=8))


def test_growing_keeps_what_was_learned_and_starts_newcomers_afresh() -> None:
    fitness = initial_fitness(2, 3, seed=1)
    update_fitness(fitness, 0, [1], [1.0], 0.3)
    larger = grown(fitness, 3, seed=1)
    np.testing.assert_array_equal(larger[:2], fitness)
    np.testing.assert_array_equal(larger[2], initial_fitness(3, 3, seed=1)[2])
    assert grown(larger, 3, seed=1) is larger
