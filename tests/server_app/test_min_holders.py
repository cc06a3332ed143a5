"""Experts with enough holders or none: bounds by hand, and what is solved from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SettingsError
from common.settings import Settings
from server_app.assignment import ExpertLayers
from server_app.assignment.every_layer import solve_every_layer
from server_app.load import (
    adjusted_target,
    dynamic_bounds,
    updated_deficit,
    with_holders,
)

ONE_LAYER = np.zeros(4, dtype=np.int64)


def test_experts_of_the_highest_target_are_open() -> None:
    # Five clients with two places each: ten places, three experts of three holders.
    budgets, deficit = [2] * 5, np.array([0.0, 1.0, -1.0, 0.5])
    bounds = dynamic_bounds(budgets, deficit, tolerance=0.1, gain=1.0)
    target = adjusted_target(budgets, deficit, 1.0)
    found, closed = with_holders(bounds, budgets, target, 3, ONE_LAYER)
    assert closed.tolist() == [False, False, True, False]
    assert found.lower.tolist() == [3, 3, 0, 3]
    # 1.1 * 10 / 3 is 3.7: up to 4 each, so that all ten places can be filled.
    assert found.upper.tolist() == [4, 4, 0, 4]


def test_one_client_cannot_stand_in_for_another() -> None:
    # Six places, but the first client has one: two experts of three holders cannot be.
    budgets = [1, 2, 3]
    bounds = dynamic_bounds(budgets, np.zeros(3), tolerance=0.1, gain=1.0)
    found, closed = with_holders(
        bounds, budgets, np.ones(3), 3, np.zeros(3, dtype=np.int64)
    )
    assert closed.tolist() == [False, True, True]
    assert found.lower.tolist() == [3, 0, 0]


def test_without_a_demand_nothing_changes() -> None:
    bounds = dynamic_bounds([2] * 5, np.zeros(4), tolerance=0.1, gain=1.0)
    found, closed = with_holders(bounds, [2] * 5, np.zeros(4), 1, ONE_LAYER)
    assert found is bounds and not closed.any()


def test_more_holders_than_clients_cannot_be_had() -> None:
    bounds = dynamic_bounds([2] * 2, np.zeros(4), tolerance=0.1, gain=1.0)
    found, closed = with_holders(bounds, [2] * 2, np.ones(4), 9, ONE_LAYER)
    assert (~closed).sum() == 2
    assert found.lower[~closed].tolist() == [2, 2]


@given(data=st.data(), least=st.integers(2, 4), layers=st.integers(1, 2))
def test_whatever_the_fleet_an_expert_has_enough_holders_or_none(
    data: st.DataObject, least: int, layers: int
) -> None:
    clients = data.draw(st.integers(least, 9))
    experts = data.draw(st.integers(1, 6))
    each = data.draw(st.lists(st.integers(1, 3), min_size=clients, max_size=clients))
    seed = data.draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    of = ExpertLayers(num_experts=experts, num_layers=layers)
    budgets = np.minimum(each, experts) * layers
    deficit = rng.normal(size=experts * layers) * 2
    bounds = dynamic_bounds(budgets, deficit, tolerance=0.1, gain=1.0)
    target = adjusted_target(budgets, deficit, 1.0)
    bounds, closed = with_holders(bounds, budgets, target, least, of.of_experts)
    fitness = rng.random((clients, experts * layers))
    answer = solve_every_layer(fitness, budgets, bounds, of, closed)
    load = answer.matrix.sum(axis=0)
    assert not load[closed].any()
    assert (load[~closed] >= least).all()
    assert (answer.matrix.sum(axis=1) <= budgets).all()


def test_whoever_was_left_out_is_in_next() -> None:
    """Over rounds every expert has its turn: the deficit sees to it."""
    budgets, deficit, turns = [2] * 5, np.zeros(4), np.zeros(4, dtype=int)
    of = ExpertLayers(num_experts=4)
    for number in range(8):
        bounds = dynamic_bounds(budgets, deficit, tolerance=0.1, gain=1.0)
        target = adjusted_target(budgets, deficit, 1.0)
        bounds, closed = with_holders(bounds, budgets, target, 3, of.of_experts)
        fitness = np.random.default_rng(number).random((5, 4))
        load = solve_every_layer(fitness, budgets, bounds, of, closed).matrix.sum(0)
        deficit = updated_deficit(deficit, load, 1.0, 5)
        turns += load > 0
    assert turns.min() >= 5  # of eight rounds; six would be the mean


@pytest.mark.parametrize("least", [0, -1])
def test_fewer_than_one_is_no_setting(least: int) -> None:
    with pytest.raises(SettingsError, match="min-holders"):
        Settings.from_run_config({"min-holders": least})
