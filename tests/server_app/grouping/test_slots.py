"""Slots worked out by hand, and how even they are in the end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.metrics import coefficient_of_variation
from server_app.grouping import place

NOBODY = -np.ones(4, dtype=np.int64)


def test_the_larger_group_has_more_copies() -> None:
    groups = np.array([0, 0, 0, 0, 0, 1])
    slots, owner = place(groups, np.zeros(4, np.int64), NOBODY)
    # Three copies for the five of group 0, as 2, 2 and 1; one for the one of group 1.
    assert owner.tolist() == [0, 0, 0, 1]
    assert slots.tolist() == [0, 0, 1, 1, 2, 3]


def test_the_largest_part_goes_where_least_was_served() -> None:
    groups = np.array([0, 0, 0, 1])
    slots, owner = place(groups, np.array([4, 2]), np.array([0, 1]))
    assert slots.tolist() == [1, 1, 1, 0]
    assert owner.tolist() == [1, 0]


def test_of_slots_alike_a_group_keeps_its_own() -> None:
    slots, owner = place(np.array([0, 1]), np.array([3, 3]), np.array([1, 0]))
    assert slots.tolist() == [1, 0]
    assert owner.tolist() == [1, 0]


def test_a_slot_without_clients_keeps_what_it_has() -> None:
    slots, owner = place(np.array([1]), np.zeros(2, np.int64), np.array([0, -1]))
    assert slots.tolist() == [0]
    assert owner.tolist() == [1, -1]
    nobody, same = place(np.array([], np.int64), np.zeros(2, np.int64), owner)
    assert len(nobody) == 0
    np.testing.assert_array_equal(same, owner)


def test_more_groups_than_slots() -> None:
    with pytest.raises(ValueError, match="3 groups on 2 slots"):
        place(np.array([0, 1, 2]), np.zeros(2, np.int64), NOBODY[:2])


def cumulated(groups: np.ndarray, slots: int, rounds: int, share: float = 1.0) -> float:
    rng = np.random.default_rng(0)
    loads, owner = np.zeros(slots, np.int64), -np.ones(slots, dtype=np.int64)
    for _ in range(rounds):
        there = rng.random(len(groups)) < share
        taken, owner = place(groups[there], loads, owner)
        loads = loads + np.bincount(taken, minlength=slots)
    return coefficient_of_variation(loads)


@pytest.mark.parametrize("sizes", [[20], [10, 10], [7, 7, 6], [5, 5, 5, 5], [18, 2]])
def test_after_44_rounds_slots_have_served_alike(sizes: list[int]) -> None:
    assert cumulated(np.repeat(np.arange(len(sizes)), sizes), 4, 44) <= 0.01


def test_also_where_half_of_the_clients_take_part() -> None:
    assert cumulated(np.repeat(np.arange(4), 25), 4, 44, share=0.5) <= 0.012


@given(
    groups=st.lists(st.integers(0, 3), max_size=30),
    loads=st.lists(st.integers(0, 9), min_size=4, max_size=6),
)
def test_everybody_is_served_by_an_expert_of_the_own_group(
    groups: list[int], loads: list[int]
) -> None:
    nobody = -np.ones(len(loads), dtype=np.int64)
    slots, owner = place(np.array(groups, np.int64), np.array(loads), nobody)
    assert owner[slots].tolist() == groups
    for group in set(groups):
        # The copies of one group differ by one client at most.
        parts = [np.sum(slots == s) for s in np.flatnonzero(owner == group)]
        assert max(parts) - min(parts) <= 1
