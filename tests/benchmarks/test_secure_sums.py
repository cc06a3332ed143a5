"""Secure sums: exact to the bit, whoever drops out, and nothing told of too few."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.secure_sums.masks import (
    Masked,
    Member,
    Sharing,
    Units,
    UnsafeError,
    unmasked,
)
from common.grid import GRID
from server_app.merging.exact_sums import ExactSums

HOLDERS = {
    "extractor": (1, 2, 4, 7, 9),
    "expert.0": (1, 2, 7),
    "expert.1": (2, 4, 9),
    "expert.2": (4, 7),
}
SIZES = {"extractor": 7, "expert.0": 3, "expert.1": 3, "expert.2": 1}
SHARING = Sharing(name="r/1", holders=HOLDERS, sizes=SIZES, threshold=3, least=2)


def contributions(seed: int) -> dict[int, dict[str, Units]]:
    rng = np.random.default_rng(seed)
    return {
        member: {
            part: rng.integers(-(2**58), 2**58, SIZES[part])
            for part in SHARING.parts_of(member)
        }
        for member in SHARING.members
    }


class Fleet:
    def __init__(self, never: frozenset[int] = frozenset()) -> None:
        self.members = {m: Member(m, SHARING) for m in SHARING.members}
        self.directory = {n: member.keys() for n, member in self.members.items()}
        self.shared = frozenset(self.members) - never
        self.sealed = {m: self.members[m].shares(self.directory) for m in self.shared}

    def masked(self, member: int, units: dict[str, Units]) -> dict[str, Masked]:
        mine = {
            other: boxes[member]
            for other, boxes in self.sealed.items()
            if other != member
        }
        return self.members[member].masked(units, mine)


def summed(
    units: dict[int, dict[str, Units]], gone: frozenset[int], never: frozenset[int]
) -> dict[str, Units]:
    fleet = Fleet(never)
    masked = {m: fleet.masked(m, units[m]) for m in fleet.shared - gone}
    left = frozenset(masked)
    told = {m: fleet.members[m].unmask(left) for m in sorted(left)[:3]}
    return unmasked(SHARING, fleet.directory, masked, told, fleet.shared)


@given(
    seed=st.integers(0, 100),
    gone=st.frozensets(st.sampled_from(SHARING.members), max_size=2),
    never=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_the_sum_is_exact_over_who_is_left(
    seed: int, gone: frozenset[int], never: bool
) -> None:
    units = contributions(seed)
    # Gone before their shares came, or after: others have masks with the latter only.
    early = frozenset(sorted(gone)[:1]) if never else frozenset()
    found = summed(units, gone, early)
    for part, holders in HOLDERS.items():
        left = [m for m in holders if m not in gone]
        if len(left) < 2:
            assert part not in found
        else:
            expected = sum(units[m][part] for m in left)
            np.testing.assert_array_equal(found[part], expected)


def test_it_is_the_exact_sum_of_the_server() -> None:
    rng = np.random.default_rng(0)
    vectors = {
        m: {p: rng.normal(size=SIZES[p]).astype(np.float32) for p in parts}
        for m in SHARING.members
        if (parts := SHARING.parts_of(m))
    }
    units = {
        m: {
            p: np.rint(v.astype(float) * 5.0 * GRID).astype(np.int64)
            for p, v in each.items()
        }
        for m, each in vectors.items()
    }
    found = summed(units, frozenset(), frozenset())
    for part, holders in HOLDERS.items():
        plain = ExactSums(SIZES[part])
        for m in holders:
            plain.add(vectors[m][part], 5.0)
        mine = np.array([float(Fraction(int(n), 2**32)) for n in found[part]])
        ones = np.ones(SIZES[part])
        np.testing.assert_array_equal(plain.over(ones), mine.astype(np.float32))


def test_what_is_sent_looks_like_noise() -> None:
    sizes = {part: 4000 for part in HOLDERS}
    sharing = Sharing(name="r/1", holders=HOLDERS, sizes=sizes, threshold=3, least=2)
    members = {m: Member(m, sharing) for m in sharing.members}
    directory = {n: member.keys() for n, member in members.items()}
    sealed = {m: members[m].shares(directory) for m in members}
    mine = {m: boxes[2] for m, boxes in sealed.items() if m != 2}
    units = {part: np.zeros(4000, np.int64) for part in sharing.parts_of(2)}
    first = members[2].masked(units, mine)
    for vector in first.values():
        assert stats.kstest(vector / 2.0**64, "uniform").pvalue > 1e-4
    parts = [*first.values()]
    assert abs(np.corrcoef(parts[0] / 2.0**64, parts[1] / 2.0**64)[0, 1]) < 0.06


def test_a_part_of_too_few_stays_masked() -> None:
    fleet, units = Fleet(), contributions(1)
    masked = {m: fleet.masked(m, units[m]) for m in (1, 2, 4, 9)}
    told = {m: fleet.members[m].unmask(frozenset(masked)) for m in masked}
    for seeds, keys in told.values():
        assert (4, "expert.2") not in seeds and (4, "extractor") in seeds
        assert set(keys) == {7}
    found = unmasked(SHARING, fleet.directory, masked, told, fleet.shared)
    assert set(found) == {"extractor", "expert.0", "expert.1"}


def test_of_nobody_both_secrets_are_told() -> None:
    fleet, units = Fleet(), contributions(2)
    for m in SHARING.members:
        fleet.masked(m, units[m])
    member = fleet.members[1]
    member.unmask(frozenset({1, 2, 4, 9}))
    with pytest.raises(UnsafeError, match="told once"):
        member.unmask(frozenset({1, 2, 7, 9}))
    with pytest.raises(UnsafeError, match="too few"):
        fleet.members[2].unmask(frozenset({1, 2}))
    with pytest.raises(UnsafeError, match="strangers"):
        fleet.members[2].unmask(frozenset({1, 2, 99}))


@pytest.mark.parametrize(
    ("threshold", "least", "named"),
    [
        (2, 2, "threshold 2"),
        (6, 2, "threshold 6"),
        (3, 1, "no sum"),
        (3, 3, "expert.2"),
    ],
)
def test_a_plan_that_protects_nobody_is_refused(
    threshold: int, least: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Sharing(
            name="r", holders=HOLDERS, sizes=SIZES, threshold=threshold, least=least
        )


def test_what_cannot_be_summed_is_refused() -> None:
    fleet, units = Fleet(), contributions(3)
    units[1]["extractor"][0] = 2**61
    with pytest.raises(ValueError, match="leaves the range"):
        fleet.masked(1, units[1])
