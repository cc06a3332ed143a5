"""Which samples are held out: a property of each sample, whatever else is there."""

from hashlib import blake2b

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.own.held_out import content_hash, group_hash, held_out_rows

IDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40)
SHARE = st.floats(0.01, 0.99)


def held(ids: list[int], share: float, test: list[int] = []) -> list[bool]:  # noqa: B006
    marks = np.zeros(len(ids), dtype=bool)
    marks[test] = True
    return held_out_rows(np.array(ids, dtype=np.uint64), share, marks).tolist()


@given(IDS, SHARE)
def test_training_is_never_empty(ids: list[int], share: float) -> None:
    assert not all(held(ids, share))


@given(IDS, IDS, SHARE)
def test_growth_moves_nobody(ids: list[int], more: list[int], share: float) -> None:
    # Once a hash puts something into training: until then the highest is there.
    ids = [*ids, int(share * 2**64)]
    assert held(ids + more, share)[: len(ids)] == held(ids, share)


@given(IDS, SHARE, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(
    ids: list[int], share: float, random: object
) -> None:
    order = list(range(len(ids)))
    random.shuffle(order)  # type: ignore[attr-defined]
    turned = held([ids[i] for i in order], share)
    straight = held(ids, share)
    assert turned == [straight[i] for i in order]


@given(IDS, SHARE, st.lists(st.integers(0, 39), max_size=5))
def test_equal_identities_are_on_one_side(
    ids: list[int], share: float, test: list[int]
) -> None:
    twice = ids + ids
    sides = held(twice, share, [t for t in test if t < len(ids)])
    assert sides[: len(ids)] == sides[len(ids) :]


def test_the_share_is_that_of_the_task() -> None:
    ids = [content_hash(np.array([i], dtype=np.int64)) for i in range(20_000)]
    for share in (0.05, 0.2, 0.5):
        # Five standard deviations of a binomial distribution.
        spread = 5 * (share * (1 - share) / len(ids)) ** 0.5
        assert abs(np.mean(held(ids, share)) - share) < spread


def test_what_is_for_testing_is_held_out_with_its_copies() -> None:
    low, high, top = 1, 2**64 - 2, 2**64 - 1
    assert held([high, high, top], 0.5, test=[0]) == [True, True, False]
    assert held([high, low], 0.5, test=[0]) == [True, False]
    assert held([high, top], 0.5, test=[0, 1]) == [True, True]


def test_one_sample_and_one_group_are_trained_on() -> None:
    assert held([1], 0.9) == [False]
    assert held([7, 7, 7], 0.9) == [False, False, False]
    assert held([1, 2, 3], 0.9) == [True, True, False]


def test_hashes_are_those_of_blake2b() -> None:
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    first = blake2b(bytes(range(6)), digest_size=8).digest()
    assert content_hash(x) == int.from_bytes(first, "little")
    assert content_hash(x.T) != content_hash(x)
    assert group_hash("p1") != group_hash("p2")
    assert group_hash("\udce9") != group_hash("?")
