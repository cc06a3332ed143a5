"""Natural partitions: samples stay with their owner."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import parse_partition, partition
from common.data import partition_hash as hash_of


def natural(owners: list[int], clients: int, seed: int = 0) -> list[list[int]]:
    """Return the owners of every client's samples."""
    numbers = np.array(owners)
    parts = partition(
        np.zeros(len(owners), int), NATURAL, clients, seed, owners=numbers
    )
    return [sorted(numbers[part].tolist()) for part in parts]


NATURAL = parse_partition("natural")


def test_natural_clients_are_the_owners() -> None:
    assert natural([7, 3, 7, 3, 5, 5, 7], 3) == [[3, 3], [5, 5], [7, 7, 7]]


def test_natural_with_more_clients_than_owners() -> None:
    # 6 spare clients over 20 and 10 samples: 4 and 2, and one each before.
    mixed = natural([1] * 10 + [0] * 20, 8)
    assert mixed == [[0] * 4] * 5 + [[1] * 4, [1] * 3, [1] * 3]


def test_natural_with_fewer_clients_than_owners() -> None:
    # 9 to client 0, 5 to client 1, 4 to client 1 (5 < 9), 2 to either at 9: the first.
    owners = [0] * 4 + [1] * 9 + [2] * 2 + [3] * 5
    assert natural(owners, 2) == [[1] * 9 + [2] * 2, [0] * 4 + [3] * 5]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(20, 40), min_size=1, max_size=6),
    clients=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_natural_covers_everything_and_tears_as_little_as_it_can(
    sizes: list[int], clients: int, seed: int
) -> None:
    owners = np.random.default_rng(seed).permutation(
        np.repeat(np.arange(len(sizes)), sizes)
    )
    labels = np.zeros(len(owners), int)
    parts = partition(labels, NATURAL, clients, seed, owners=owners)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(owners)))
    whose = [set(owners[part].tolist()) for part in parts]
    if clients >= len(sizes):
        assert all(len(one) == 1 for one in whose)
    else:
        assert sum(map(len, whose)) == len(sizes)
    again = partition(labels, NATURAL, clients, seed, owners=owners)
    assert hash_of(again) == hash_of(parts)


def test_natural_gives_nobody_what_is_anothers() -> None:
    with pytest.raises(ValueError, match="1 of 2 clients fewer than 2 samples"):
        natural([0] * 30 + [1], 2)
    with pytest.raises(ValueError, match="'natural' needs to know whose"):
        partition(np.zeros(20, int), NATURAL, 2, 0)
