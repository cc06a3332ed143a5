"""Exact copies are found, and are on one side of every client's held-out cut."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.data import Dataset, load_client_data, parse_partition
from common.data import copies as module
from common.data.copies import copies, copies_in
from tests.common.data.test_clients import numbered

PARTITIONS = ("iid", "dirichlet:0.3", "classes:2")


@given(
    st.lists(st.integers(0, 30), max_size=60),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(1, 9),
)
def test_copies_are_what_a_slow_search_finds(
    values: list[int], dtype: type, width: int
) -> None:
    x: NDArray[Any] = np.zeros((len(values), width), dtype=dtype)
    x[:, -1] = values
    found = copies(x)
    twice = [values.count(v) > 1 for v in values]
    if found is None:
        assert not any(twice)
        return
    assert (found >= 0).tolist() == twice
    for i, one in enumerate(values):
        for j, other in enumerate(values):
            if twice[i] and twice[j]:
                assert (found[i] == found[j]) == (one == other)


def test_equal_sums_are_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_sums", lambda x: np.zeros(len(x), dtype=np.uint64))
    found = copies(np.array([[1], [2], [1], [3]], dtype=np.uint8))
    assert found is not None and found.tolist() == [0, -1, 0, -1]


def test_no_samples_have_no_copies() -> None:
    assert copies(np.empty((0, 3))) is None


def with_copies(times: int, lone: int = 0, seed: int = 0) -> Dataset:
    """Return 60 samples that are there several times, and some that are not."""
    rng = np.random.default_rng(seed)
    rows = np.r_[np.repeat(np.arange(60), times), 60 + np.arange(lone)]
    x = rng.permutation(rows).astype(np.float32).reshape(-1, 1)
    y = rng.integers(0, 4, len(rows))
    return replace(numbered(), x_train=x, y_train=y)


def sides(dataset: Dataset, kind: str, clients: int = 4) -> tuple[set[int], set[int]]:
    """Return what any client trains on, and what any holds out."""
    train: set[int] = set()
    held: set[int] = set()
    for c in range(clients):
        data = load_client_data(dataset, parse_partition(kind), c, clients, 0)
        assert len(data.train) and len(data.held_out)
        train |= {*data.x_train.ravel().astype(int).tolist()}
        held |= {*data.x_held_out.ravel().astype(int).tolist()}
    return train, held


@pytest.mark.parametrize("kind", PARTITIONS)
@pytest.mark.parametrize("lone", [0, 100])
def test_copies_are_on_one_side_with_all_clients(kind: str, lone: int) -> None:
    train, held = sides(with_copies(20, lone), kind)
    assert not train & held
    share = len(held) / (60 + lone)
    assert 0.05 < share < 0.4


def test_what_all_fell_on_one_side_is_cut_by_copies() -> None:
    # Three samples, many times: sides drawn for all clients may leave one empty.
    for seed in range(10):
        x = np.repeat(np.arange(3), 8).astype(np.float32).reshape(-1, 1)
        data = replace(numbered(), x_train=x, y_train=np.zeros(24, dtype=np.int64))
        mine = load_client_data(data, parse_partition("iid"), 0, 1, seed)
        train = {*mine.x_train.ravel().tolist()}
        held = {*mine.x_held_out.ravel().tolist()}
        assert train and held and not train & held


def test_one_sample_many_times_is_still_cut() -> None:
    # There is nothing else to do: both sides must have something.
    data = replace(numbered(), x_train=np.zeros((200, 1), dtype=np.float32))
    mine = load_client_data(data, parse_partition("iid"), 0, 1, 0)
    assert len(mine.train) and len(mine.held_out)


def test_rows_without_copies_stay_where_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rows() -> NDArray[np.int64]:
        data = load_client_data(numbered(), parse_partition("iid"), 1, 4, 0)
        return data.held_out

    now = rows()
    monkeypatch.setattr("common.data.clients.copies_in", lambda _: None)
    assert rows().tolist() == now.tolist()


def test_groups_count_before_copies() -> None:
    dataset = with_copies(4)
    groups = np.arange(240) // 2
    grouped = replace(dataset, group_train=groups)
    for c in range(4):
        data = load_client_data(grouped, parse_partition("iid"), c, 4, 0)
        assert not {*groups[data.train]} & {*groups[data.held_out]}


def test_units_of_a_client_are_its_copies_its_groups_or_unknown() -> None:
    def of(dataset: Dataset) -> tuple[NDArray[np.int64] | None, NDArray[Any]]:
        data = load_client_data(dataset, parse_partition("iid"), 1, 4, 0)
        return data.units, data.train

    copied = with_copies(3, lone=100)
    units, train = of(copied)
    assert units is not None
    # Equal numbers for equal samples, and for no others.
    alike = units[:, None] == units
    np.testing.assert_array_equal(
        alike, copied.x_train[train] == copied.x_train[train].T
    )
    groups = np.arange(280) // 2
    units, train = of(replace(copied, group_train=groups))
    np.testing.assert_array_equal(units, groups[train])
    assert of(numbered())[0] is None


def test_a_data_set_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = with_copies(2)
    first = copies_in(dataset)
    monkeypatch.setattr(module, "copies", lambda _: pytest.fail("again"))
    assert copies_in(dataset) is first
