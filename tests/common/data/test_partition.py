"""Partitions: properties for all kinds, and hand-made expectations for each."""

import hashlib
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.data import PartitionSpec, parse_partition, partition
from common.data import partition_hash as hash_of

SPECS = ("iid", "dirichlet:0.05", "dirichlet:0.3", "dirichlet:100")


def labels_of(*counts: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts)), counts)


def classes_of(labels: NDArray[np.int64], part: NDArray[np.int64]) -> set[int]:
    return set(labels[part].tolist())


@pytest.mark.parametrize(
    ("text", "kind", "argument"),
    [
        ("iid", "iid", None),
        (" iid ", "iid", None),
        ("dirichlet:0.3", "dirichlet", 0.3),
        ("dirichlet:1", "dirichlet", 1.0),
        ("dirichlet:1e-3", "dirichlet", 0.001),
        ("classes:2", "classes", 2),
        ("natural", "natural", None),
    ],
)
def test_parse(text: str, kind: str, argument: float | None) -> None:
    spec = parse_partition(text)
    assert spec == PartitionSpec(kind=kind, argument=argument)
    assert parse_partition(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dirchlet:0.3", "did you mean 'dirichlet:0.3'?"),
        ("dirchlet:-1", "did you mean 'dirichlet:0.3'?"),
        ("class:3", "did you mean 'classes:3'?"),
        ("2-class", "did you mean 'classes:2'?"),
        ("IID", "did you mean 'iid'?"),
        ("naturel", "did you mean 'natural'?"),
        ("natural:3", "natural takes no argument"),
        ("", "choose from iid, dirichlet:ALPHA"),
        ("zzz", "choose from iid, dirichlet:ALPHA"),
        ("iid:2", "iid takes no argument"),
        ("dirichlet", "ALPHA a number above 0"),
        ("dirichlet:", "ALPHA a number above 0"),
        ("dirichlet:0", "ALPHA a number above 0"),
        ("dirichlet:-0.3", "ALPHA a number above 0"),
        ("dirichlet:nan", "ALPHA a number above 0"),
        ("dirichlet:inf", "ALPHA a number above 0"),
        ("dirichlet:0,3", "ALPHA a number above 0"),
        ("classes:0", "N an integer from 1"),
        ("classes:2.5", "N an integer from 1"),
        ("classes:-1", "N an integer from 1"),
    ],
)
def test_parse_refuses(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))) as error:
        parse_partition(text)
    assert says in str(error.value)


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8),
    num_clients=st.integers(1, 12),
    spec=st.sampled_from(SPECS),
    seed=st.integers(0, 2**32 - 1),
)
def test_disjoint_covering_large_enough_and_repeatable(
    counts: list[int], num_clients: int, spec: str, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(labels_of(*counts))
    parsed = parse_partition(spec)
    if len(labels) < 2 * num_clients:
        with pytest.raises(ValueError, match="too few"):
            partition(labels, parsed, num_clients, seed)
        return
    parts = partition(labels, parsed, num_clients, seed)
    least = max(2, min(10, len(labels) // (2 * num_clients)))
    assert len(parts) == num_clients
    assert min(len(part) for part in parts) >= least
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert all(np.array_equal(part, np.sort(part)) for part in parts)
    assert hash_of(partition(labels, parsed, num_clients, seed)) == hash_of(parts)


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_classes_are_exact_and_balanced(data: st.DataObject, seed: int) -> None:
    num_classes = data.draw(st.integers(1, 9))
    count = data.draw(st.integers(1, num_classes))
    num_clients = data.draw(st.integers(1, 15))
    # Enough of each class that sharing it never leaves a client without.
    sizes = data.draw(
        st.lists(st.integers(40, 60), min_size=num_classes, max_size=num_classes)
    )
    labels = labels_of(*sizes)
    parts = partition(labels, parse_partition(f"classes:{count}"), num_clients, seed)

    held = [classes_of(labels, part) for part in parts]
    assert all(len(classes) == count for classes in held)
    holders = [sum(k in classes for classes in held) for k in range(num_classes)]
    assert max(holders) - min(holders) <= 1
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    covered = [k for k in range(num_classes) if holders[k]]
    assert len(covered) == min(num_classes, num_clients * count)
    assert len(together) == sum(sizes[k] for k in covered)


def test_iid_sizes_differ_by_at_most_one() -> None:
    parts = partition(labels_of(30, 33), parse_partition("iid"), 4, seed=1)
    assert sorted(len(part) for part in parts) == [15, 16, 16, 16]


def test_dirichlet_with_a_huge_alpha_gives_equal_shares_of_every_class() -> None:
    labels = labels_of(100, 200)
    for alpha in ("1e12", "1e308"):
        parts = partition(labels, parse_partition(f"dirichlet:{alpha}"), 5, seed=3)
        shares = [np.bincount(labels[part]).tolist() for part in parts]
        assert shares == [[20, 40]] * 5


def test_dirichlet_skew_grows_as_alpha_falls() -> None:
    labels = labels_of(*[200] * 10)

    def largest_share(alpha: float) -> float:
        spec = PartitionSpec(kind="dirichlet", argument=alpha)
        parts = partition(labels, spec, 10, seed=0)
        return float(np.mean([np.bincount(labels[p]).max() / len(p) for p in parts]))

    assert largest_share(0.05) > 0.6 > largest_share(1) > 0.2 > largest_share(1000)


def test_classes_by_hand() -> None:
    # Three clients, three classes, two each: every class is shared by two, in halves.
    labels = labels_of(20, 40, 60)
    parts = partition(labels, parse_partition("classes:2"), 3, seed=5)
    halves = np.array([10, 20, 30])
    for part in parts:
        counts = np.bincount(labels[part], minlength=3)
        assert (counts > 0).sum() == 2
        assert all(counts[k] in (0, halves[k]) for k in range(3))


def test_one_class_each() -> None:
    labels = labels_of(30, 30, 30)
    parts = partition(labels, parse_partition("classes:1"), 6, seed=0)
    assert sorted(labels[part][0] for part in parts) == [0, 0, 1, 1, 2, 2]
    assert [len(part) for part in parts] == [15] * 6


def test_classes_that_nobody_holds_are_left_out() -> None:
    labels = labels_of(*[20] * 10)
    parts = partition(labels, parse_partition("classes:2"), 3, seed=0)
    held = [classes_of(labels, part) for part in parts]
    assert len(set.union(*held)) == 6
    assert sum(len(part) for part in parts) == 120


def test_class_pairs_vary() -> None:
    # A cyclic deal would repeat the same five pairs of ten classes.
    labels = labels_of(*[100] * 10)
    parts = partition(labels, parse_partition("classes:2"), 20, seed=0)
    assert len({frozenset(classes_of(labels, part)) for part in parts}) > 10


def test_more_classes_than_there_are() -> None:
    with pytest.raises(ValueError, match="expected 1 to 3, the number of classes"):
        partition(labels_of(20, 20, 20), parse_partition("classes:4"), 2, seed=0)


def test_top_up_takes_from_the_largest_and_keeps_classes() -> None:
    # One client per class; the rare class is shared by two with three samples each.
    labels = labels_of(6, 100)
    parts = partition(labels, parse_partition("classes:1"), 4, seed=0, min_size=3)
    assert sorted(len(part) for part in parts) == [3, 3, 50, 50]
    # A larger minimum can only be reached with the other class, from the largest.
    parts = partition(labels, parse_partition("classes:1"), 4, seed=0, min_size=5)
    assert sorted(len(part) for part in parts) == [5, 5, 48, 48]
    assert sorted(len(classes_of(labels, part)) for part in parts) == [1, 1, 2, 2]


def test_top_up_ends_where_drawing_anew_would_not() -> None:
    labels = labels_of(500, 500)
    parts = partition(labels, parse_partition("dirichlet:1e-6"), 100, 0, min_size=10)
    assert {len(part) for part in parts} == {10}


@pytest.mark.parametrize("num_clients", [0, -1])
def test_needs_a_client(num_clients: int) -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        partition(labels_of(10), parse_partition("iid"), num_clients, seed=0)


def test_too_many_clients() -> None:
    with pytest.raises(ValueError, match="30 samples are too few for 20 clients"):
        partition(labels_of(30), parse_partition("iid"), 20, seed=0)


def test_seed_and_kind_change_the_partition() -> None:
    labels = labels_of(*[50] * 4)
    hashes = {
        hash_of(partition(labels, parse_partition(spec), 5, seed))
        for spec in ("iid", "dirichlet:0.3", "classes:2")
        for seed in (0, 1, 2)
    }
    assert len(hashes) == 9


def test_golden_hashes() -> None:
    """Another NumPy or processor must come to the same partition (1.26 and 2.4 do)."""
    labels = np.arange(1000) // 100
    found = {
        spec: hash_of(partition(labels, parse_partition(spec), 20, seed=0))[:12]
        for spec in ("iid", "dirichlet:0.3", "dirichlet:3", "classes:2", "classes:3")
    }
    assert found == {
        "iid": "294b378e9afc",
        "dirichlet:0.3": "65a65a5415fd",
        "dirichlet:3": "863d1fad6157",
        "classes:2": "22c6f514a04d",
        "classes:3": "3431b4ec1add",
    }


def test_hash_of_a_hand_made_partition() -> None:
    parts = (np.array([0, 2]), np.array([1]))
    layout = struct.pack("<2q", 2, 1) + struct.pack("<3q", 0, 2, 1)
    golden = hashlib.sha256(b"expertfleet partition 1\0" + layout).hexdigest()
    assert golden.startswith("00cd63e38425e90f")
    assert hash_of(parts) == golden
    assert hash_of((np.array([2, 0], dtype=np.int32), np.array([1], ">i8"))) == golden
    assert hash_of((np.array([1]), np.array([0, 2]))) != golden
    assert hash_of((np.array([0, 2, 1]), np.array([], dtype=np.int64))) != golden
