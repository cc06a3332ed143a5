"""Experts of several layers: one of each for everybody, and never beyond a budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.assignment import AssignmentProblem, ExpertLayers, covering, solve
from server_app.assignment.policies import greedy_top_k, random_k, round_robin
from server_app.strategies.fedmix import passing_experts
from server_app.strategies.system_level import layer_shares

TWO = ExpertLayers(num_experts=3, num_layers=2)


def row(text: str) -> np.ndarray:
    return np.array([[c == "1" for c in text]])


def test_experts_are_numbered_layer_by_layer() -> None:
    assert TWO.of_experts.tolist() == [0, 0, 0, 1, 1, 1]
    nothing, one, both = row("000000"), row("010000"), row("010001")
    missing = TWO.missing(np.concatenate([nothing, one, both]))
    # Who holds nothing lacks nothing.
    assert missing.tolist() == [[False, False], [False, True], [False, False]]


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


def test_a_budget_for_less_than_one_of_each_is_refused() -> None:
    with pytest.raises(ValueError, match=r"client 0 has a budget of 1, too little"):
        covering(row("100000"), np.zeros((1, 6)), [1], TWO)


def test_one_layer_is_left_as_it_is() -> None:
    held = row("0110")
    assert covering(held, np.zeros((1, 4)), [1], ExpertLayers(num_experts=4)) is held


def test_shares_are_of_the_layer() -> None:
    shares = layer_shares(np.array([1, 3, 5, 0]), np.array([0, 0, 1, 2]))
    assert shares.tolist() == [0.25, 0.75, 1.0, 0.0]


def test_round_robin_turns_every_layer() -> None:
    held = round_robin([4, 2], 6, 0, TWO)
    assert held.astype(int).tolist() == [[1, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 1]]


@st.composite
def mixes(draw: st.DrawFn) -> tuple[ExpertLayers, np.ndarray, np.ndarray]:
    """Layers, clients that can hold one expert of each or more, and scores."""
    experts, count = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    layers = ExpertLayers(num_experts=experts, num_layers=count)
    clients = draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(0, 10), min_size=clients, max_size=clients))
    seed = draw(st.integers(0, 2**16))
    scores = np.random.default_rng(seed).random((clients, experts * count)).round(1)
    return layers, count + np.array(extra), scores


def holds(held: np.ndarray, layers: ExpertLayers, budgets: np.ndarray) -> None:
    assert (held.sum(axis=1) <= budgets).all(), "a budget is exceeded"
    by_layer = held.reshape(len(held), layers.num_layers, layers.num_experts)
    assert by_layer.any(axis=2).all(), "a layer is left out"


@given(mix=mixes(), turn=st.integers(0, 9))
def test_no_policy_exceeds_a_budget_or_leaves_out_a_layer(
    mix: tuple[ExpertLayers, np.ndarray, np.ndarray], turn: int
) -> None:
    layers, budgets, scores = mix
    experts = scores.shape[1]
    rng = np.random.default_rng(turn)
    holds(random_k(budgets, experts, rng, layers), layers, budgets)
    holds(greedy_top_k(scores, budgets, layers), layers, budgets)
    holds(round_robin(budgets, experts, turn, layers), layers, budgets)
    passing = passing_experts(scores, budgets, 0.5)
    holds(covering(passing, scores, budgets, layers), layers, budgets)
    anything = rng.random(scores.shape) < 0.5
    anything[:, 0] = True
    if layers.num_layers > 1:
        holds(covering(anything, scores, budgets, layers), layers, budgets)


@given(mix=mixes())
def test_greedy_holds_the_best_of_every_layer(
    mix: tuple[ExpertLayers, np.ndarray, np.ndarray],
) -> None:
    layers, budgets, scores = mix
    held = greedy_top_k(scores, budgets, layers)
    for layer in range(layers.num_layers):
        inside = np.where(layers.of_experts == layer, scores, -1.0)
        taken = np.where(held & (layers.of_experts == layer), scores, -1.0)
        assert (taken.max(axis=1) == inside.max(axis=1)).all()


@settings(max_examples=50, deadline=None)
@given(mix=mixes(), low=st.integers(0, 2), width=st.integers(0, 2))
def test_the_solver_keeps_budgets_and_covers_layers_where_it_can(
    mix: tuple[ExpertLayers, np.ndarray, np.ndarray], low: int, width: int
) -> None:
    layers, budgets, scores = mix
    answer = solve(
        AssignmentProblem(
            scores, budgets, lower=low, upper=low + width, groups=layers.of_experts
        )
    )
    assert (answer.matrix.sum(axis=1) <= budgets).all()
    if not answer.relaxed:
        holds(answer.matrix, layers, budgets)
    if layers.num_layers > 1:
        # What the solver gave up for a load bound is put right within the budgets.
        wanted = answer.matrix | (~answer.matrix.any(axis=1, keepdims=True))
        holds(covering(wanted, scores, budgets, layers), layers, budgets)
