"""Stratified subsets and held-out splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import held_out_split, stratified_subset
from common.data.splits import largest_remainder, unit_rows


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_largest_remainder_by_hand() -> None:
    assert largest_remainder(np.array([1.6, 2.3, 1.1]), 5).tolist() == [2, 2, 1]
    assert largest_remainder(np.array([0.5, 0.5]), 1).tolist() == [1, 0]


def test_subset_keeps_the_shares_of_the_classes() -> None:
    labels = np.repeat([0, 1, 7], [100, 50, 50])
    rows = stratified_subset(labels, 40, rng())
    assert np.bincount(labels[rows])[[0, 1, 7]].tolist() == [20, 10, 10]
    assert np.array_equal(rows, np.unique(rows))


@pytest.mark.parametrize("size", [200, 201, 10**9])
def test_subset_of_everything(size: int) -> None:
    labels = np.repeat([0, 1], 100)
    assert stratified_subset(labels, size, rng()).tolist() == list(range(200))


def test_subset_refuses_a_negative_size() -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        stratified_subset(np.zeros(3, dtype=np.int64), -1, rng())


def test_held_out_is_stratified_by_hand() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    train, held = held_out_split(labels, 0.2, rng())
    assert np.bincount(labels[held]).tolist() == [10, 6, 4]
    assert np.bincount(labels[train]).tolist() == [40, 24, 16]


@settings(max_examples=100)
@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=60),
    groups=st.one_of(st.none(), st.integers(1, 12)),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_held_out_is_disjoint_complete_and_never_empty(
    labels: list[int], groups: int | None, share: float, seed: int
) -> None:
    y = np.array(labels)
    group = None if groups is None else rng(seed).integers(groups, size=len(y))
    train, held = held_out_split(y, share, rng(seed), group)
    assert len(train) and len(held)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(len(y)))
    if group is not None and len(np.unique(group)) > 1:
        assert not set(group[train]) & set(group[held])
    again = held_out_split(y, share, rng(seed), group)
    assert np.array_equal(train, again[0]) and np.array_equal(held, again[1])


def test_training_keeps_every_class() -> None:
    labels = np.array([0] * 10 + [1, 2, 3])
    train, _ = held_out_split(labels, 0.5, rng())
    assert set(labels[train]) == {0, 1, 2, 3}


def test_two_rows_of_two_classes_go_one_to_each_side() -> None:
    train, held = held_out_split(np.array([0, 1]), 0.2, rng())
    assert (len(train), len(held)) == (1, 1)


def test_tracks_stay_whole_and_near_their_share() -> None:
    # Class 0 has ten tracks of six frames, class 1 five: 20 % is two and one.
    labels = np.repeat([0, 1], [60, 30])
    tracks = np.repeat(np.arange(15), 6)
    shuffle = rng(1).permutation(90)
    _, held = held_out_split(labels[shuffle], 0.2, rng(), tracks[shuffle])
    found, frames = np.unique(tracks[shuffle][held], return_counts=True)
    assert frames.tolist() == [6, 6, 6]
    assert (found < 10).sum() == 2


def test_a_single_track_is_cut_by_rows() -> None:
    train, held = held_out_split(
        np.zeros(10, dtype=np.int64), 0.2, rng(), np.zeros(10, dtype=np.int64)
    )
    assert (len(train), len(held)) == (8, 2)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_held_out_refuses_a_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        held_out_split(np.zeros(10, dtype=np.int64), share, rng())


def test_held_out_needs_two_rows() -> None:
    with pytest.raises(ValueError, match="expected at least 2"):
        held_out_split(np.zeros(1, dtype=np.int64), 0.2, rng())


def test_units_by_hand() -> None:
    units = unit_rows(np.array([7, 3, 7, 3, 3]), 5)
    assert [unit.tolist() for unit in units] == [[1, 3, 4], [0, 2]]
    assert [unit.tolist() for unit in unit_rows(None, 3)] == [[0], [1], [2]]
