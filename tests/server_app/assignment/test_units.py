"""Experts of several layers: one of each for everybody, and never beyond a budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.assignment import AssignmentProblem, Units, covering, solve
from server_app.assignment.policies import greedy_top_k, random_k, round_robin
from server_app.assignment.units import layer_shares
from server_app.strategies.fedmix import passing_experts

TWO = Units.of(3, [7, 7])


def row(text: str) -> np.ndarray:
    return np.array([[c == "1" for c in text]])


def test_equal_layers_make_budgets_counts() -> None:
    assert TWO.sizes.tolist() == [1] * 6
    assert TWO.layers.tolist() == [0, 0, 0, 1, 1, 1]
    assert (TWO.num_layers, TWO.num_experts, TWO.set_size, TWO.counted) == (
        2,
        3,
        2,
        True,
    )
    unlike = Units.of(2, [10, 30])
    assert unlike.sizes.tolist() == [10, 10, 30, 30]
    assert (unlike.set_size, unlike.counted) == (40, False)
    assert unlike.sets([39, 40, 119]).tolist() == [0, 1, 2]


def test_the_best_of_a_missing_layer_replaces_the_worst_of_a_full_one() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.1, 0.3, 0.2]])
    held = covering(row("110000"), scores, [2], TWO)
    assert (held == row("100010")).all()
    roomy = covering(row("110000"), scores, [3], TWO)
    assert (roomy == row("110010")).all()
    assert (covering(row("000000"), scores, [0], TWO) == row("000000")).all()


def test_of_equals_the_higher_number_goes() -> None:
    held = covering(row("111000"), np.full((1, 6), 0.5), [3], TWO)
    assert (held == row("110100")).all()


def test_bytes_that_do_not_fit_are_made_room_for() -> None:
    units = Units.of(3, [10, 30])
    scores = np.array([[0.9, 0.8, 0.7, 0.1, 0.3, 0.2]])
    # 50 bytes: one of layer 2 takes 30, and two of layer 1 go in beside it.
    held = covering(row("111000"), scores, [50], units)
    assert (held == row("110010")).all()


def test_a_budget_for_less_than_one_of_each_is_refused() -> None:
    with pytest.raises(ValueError, match=r"client 0 has a budget of 1, too little"):
        covering(row("100000"), np.zeros((1, 6)), [1], TWO)


def test_one_layer_is_left_as_it_is() -> None:
    held = row("0110")
    assert covering(held, np.zeros((1, 4)), [1], Units.of(4)) is held


def test_shares_are_of_the_layer() -> None:
    shares = layer_shares(np.array([1, 3, 5, 0]), np.array([0, 0, 1, 2]))
    assert shares.tolist() == [0.25, 0.75, 1.0, 0.0]


def test_round_robin_turns_every_layer() -> None:
    held = round_robin([4, 2], 6, 0, TWO)
    assert held.astype(int).tolist() == [[1, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 1]]


@st.composite
def mixes(draw: st.DrawFn) -> tuple[Units, np.ndarray, np.ndarray]:
    """Layers of any sizes, clients that can hold one of each or more, and scores."""
    experts = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    units = Units.of(experts, sizes)
    clients = draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(0, 25), min_size=clients, max_size=clients))
    budgets = units.set_size + np.array(extra)
    seed = draw(st.integers(0, 2**16))
    shape = (clients, experts * len(sizes))
    return units, budgets, np.random.default_rng(seed).random(shape).round(1)


def holds(held: np.ndarray, units: Units, budgets: np.ndarray) -> None:
    assert (held @ units.sizes <= budgets).all(), "a budget is exceeded"
    for layer in range(units.num_layers):
        assert held[:, units.layers == layer].any(axis=1).all(), f"layer {layer}"


@given(mix=mixes(), turn=st.integers(0, 9))
def test_no_policy_exceeds_a_budget_or_leaves_out_a_layer(
    mix: tuple[Units, np.ndarray, np.ndarray], turn: int
) -> None:
    units, budgets, scores = mix
    experts = scores.shape[1]
    rng = np.random.default_rng(turn)
    holds(random_k(budgets, experts, rng, units), units, budgets)
    holds(greedy_top_k(scores, budgets, units), units, budgets)
    if units.num_layers > 1:
        holds(round_robin(budgets, experts, turn, units), units, budgets)
    passing = passing_experts(scores, budgets, 0.5, units)
    holds(covering(passing, scores, budgets, units), units, budgets)
    anything = rng.random(scores.shape) < 0.5
    anything[:, 0] = True
    if units.num_layers > 1:
        holds(covering(anything, scores, budgets, units), units, budgets)


@given(mix=mixes())
def test_greedy_holds_the_best_of_every_layer(
    mix: tuple[Units, np.ndarray, np.ndarray],
) -> None:
    units, budgets, scores = mix
    held = greedy_top_k(scores, budgets, units)
    for layer in range(units.num_layers):
        inside = np.where(units.layers == layer, scores, -1.0)
        taken = np.where(held & (units.layers == layer), scores, -1.0)
        if units.counted:
            assert (taken.max(axis=1) == inside.max(axis=1)).all()


@settings(max_examples=25, deadline=None)
@given(mix=mixes(), low=st.integers(0, 2), width=st.integers(0, 2))
def test_the_solver_keeps_budgets_and_covers_layers_where_it_can(
    mix: tuple[Units, np.ndarray, np.ndarray], low: int, width: int
) -> None:
    units, budgets, scores = mix
    problem = AssignmentProblem(
        scores,
        budgets,
        lower=low,
        upper=low + width,
        sizes=None if units.counted else units.sizes,
        groups=units.layers,
    )
    answer = solve(problem, time_limit=2.0)
    assert (answer.matrix @ units.sizes <= budgets).all()
    # What the solver gave up for a load bound is put right without exceeding a budget.
    wanted = answer.matrix | (~answer.matrix.any(axis=1, keepdims=True))
    holds(covering(wanted, scores, budgets, units), units, budgets) if (
        units.num_layers > 1
    ) else None
    if not answer.relaxed:
        holds(answer.matrix, units, budgets)
