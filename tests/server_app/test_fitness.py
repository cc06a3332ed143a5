"""FLEX-MoE's fitness matrix against hand-computed numbers (docs/methods.md, 1)."""

from typing import Any

import numpy as np
import pytest

from common.errors import SettingsError
from server_app.fitness import (
    Evidence,
    find_scorer,
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


EVIDENCE = Evidence(
    accuracy=np.array([0.2, 1.0]),
    loss=np.array([np.log(2), 0.0]),
    samples=np.array([30, 10]),
    loss_scale=2.0,
)


def by_share(evidence: Evidence) -> Any:
    return evidence.samples / evidence.samples.sum()


def not_from_0_to_1(evidence: Evidence) -> Any:
    return evidence.samples


def one_for_all(evidence: Evidence) -> Any:
    return 0.5


MINE = "tests.server_app.test_fitness"


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("accuracy", [0.2, 1.0]),
        ("loss", [0.25, 1.0]),
        (f"{MINE}:by_share", [0.75, 0.25]),
    ],
)
def test_scorers_by_name(name: str, scores: list[float]) -> None:
    np.testing.assert_allclose(find_scorer(name)(EVIDENCE), scores)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("los", "fitness = 'los' is not allowed: .*did you mean 'loss'"),
        (f"{MINE}:not_from_0_to_1", "from_0_to_1' returned scores of .* from 0 to 1"),
        (f"{MINE}:one_for_all", r"one_for_all' .* shape \(\), expected \(2,\)"),
        (f"{MINE}:MINE", "MINE' is not a function of Evidence"),
    ],
)
def test_what_is_no_scorer_is_one_error_that_names_it(name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        find_scorer(name)(EVIDENCE)


def test_a_pair_without_a_sample_scores_what_guessing_would() -> None:
    assert find_scorer("accuracy")(Evidence.of_guessing(10, 1.0)) == [0.1]
    # Guessing has cross-entropy ln 4: exp(-ln 4) = 1/4, exp(-2 ln 4) = 1/16.
    loss = find_scorer("loss")
    assert loss(Evidence.of_guessing(4, 1.0)) == pytest.approx(1 / 4)
    assert loss(Evidence.of_guessing(4, 2.0)) == pytest.approx(1 / 16)


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
