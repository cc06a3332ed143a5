"""The merge test on clients made by hand, and what holds whatever they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.grouping import ClassMeans, MergeTest, groups_of, nearest

FEATURES = 16


def fleet(
    seed: int,
    clients: int,
    concepts: int = 1,
    *,
    alpha: float = 1.0,
    classes: int = 6,
    samples: int = 2000,
) -> ClassMeans:
    """Clients in turn of several concepts, with label mixes by Dirichlet."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, FEATURES))
    # A concept numbers the classes in another way.
    own = [np.roll(centres, shift, axis=0) for shift in range(concepts)]
    mixes = rng.dirichlet(np.full(classes, alpha), clients)
    counts = np.array([rng.multinomial(samples, mix) for mix in mixes], np.float64)
    noise = rng.standard_normal((clients, classes, FEATURES))
    means = np.array([own[client % concepts] for client in range(clients)])
    noise /= np.sqrt(np.maximum(counts, 1))[:, :, None]
    return ClassMeans.of(means + noise, counts)


def line(*places: float, samples: int = 100, classes: int = 1) -> ClassMeans:
    """Clients with all classes at one place of a line, in one feature."""
    means = np.array(places)[:, None, None] * np.ones((1, classes, 1))
    return ClassMeans.of(means, np.full((len(places), classes), samples))


def test_gaussians_on_a_line() -> None:
    # Of 100 samples each w = 50: r = 50 d^2, against tau + 2 sqrt(2) = 4.83 and what
    # the pairs were chosen from. d = 0.1 is nothing, d = 1 is not.
    found = groups_of(line(0, 1, 0.1, 1.1), MergeTest(most=4))
    assert found.tolist() == [0, 1, 0, 1]


def test_no_more_groups_than_there_may_be() -> None:
    three = line(0, 1, 3)
    assert groups_of(three, MergeTest(most=3)).tolist() == [0, 1, 2]
    assert groups_of(three, MergeTest(most=2)).tolist() == [0, 0, 1]
    assert groups_of(three, MergeTest(most=1)).tolist() == [0, 0, 0]


def test_a_higher_tau_asks_for_more() -> None:
    assert groups_of(line(0, 1), MergeTest(most=2, tau=100)).tolist() == [0, 0]


def test_without_a_common_class_no_evidence_and_one_group() -> None:
    # 0 and 1 differ; 2 shares a class with neither and goes with one of them. Of three
    # pairs one has a class: above a coverage of 25 %.
    means = [[[0.0], [0.0]], [[9.0], [0.0]], [[0.0], [5.0]]]
    said = ClassMeans.of(means, [[50, 0], [50, 0], [0, 50]])
    found = groups_of(said, MergeTest(most=3)).tolist()
    assert found[0] != found[1]
    assert found[2] in found[:2]
    assert groups_of(said, MergeTest(most=3, coverage=0.5)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_anybody(count: int) -> None:
    assert groups_of(line(*range(count)), MergeTest(most=4)).tolist() == [0] * count


def test_clients_that_say_nothing_are_one_group() -> None:
    said = ClassMeans.of(np.zeros((5, 3, 2)), np.zeros((5, 3)))
    assert groups_of(said, MergeTest(most=4)).tolist() == [0] * 5


@given(
    seed=st.integers(0, 10**6), clients=st.integers(2, 12), concepts=st.integers(1, 3)
)
def test_the_order_of_clients_does_not_matter(
    seed: int, clients: int, concepts: int
) -> None:
    said = fleet(seed, clients, concepts, samples=60)
    order = np.random.default_rng(seed).permutation(clients)
    found, again = (groups_of(each, MergeTest(most=4)) for each in (said, said[order]))
    same = found[:, None] == found
    np.testing.assert_array_equal(again[:, None] == again, same[np.ix_(order, order)])
    # The first client of each group comes before that of the next.
    firsts = [int(np.flatnonzero(found == g)[0]) for g in range(found.max() + 1)]
    assert firsts == sorted(firsts)


@given(
    seed=st.integers(0, 10**6),
    clients=st.integers(2, 40),
    alpha=st.sampled_from([0.1, 0.3, 1.0, 100.0]),
    samples=st.sampled_from([100, 10_000]),
)
def test_label_mixes_alone_never_split(
    seed: int, clients: int, alpha: float, samples: int
) -> None:
    said = fleet(seed, clients, alpha=alpha, samples=samples)
    assert groups_of(said, MergeTest(most=8)).max() == 0


@given(
    seed=st.integers(0, 10**6), clients=st.integers(6, 30), concepts=st.integers(2, 3)
)
def test_concepts_are_told_apart(seed: int, clients: int, concepts: int) -> None:
    found = groups_of(fleet(seed, clients, concepts), MergeTest(most=8))
    assert found.tolist() == [client % concepts for client in range(clients)]


def test_many_clients_of_one_kind_are_not_cut_where_they_vary_most() -> None:
    # With tau = 2 alone they fall into two: what is close was merged first.
    said = fleet(0, 600, samples=200)
    assert groups_of(said, MergeTest(most=8)).max() == 0
    found = groups_of(fleet(0, 600, 2, samples=200), MergeTest(most=8))
    assert found.tolist() == [client % 2 for client in range(600)]


def test_the_group_of_who_joins() -> None:
    groups = line(0, 2, samples=500)
    test = MergeTest(most=4)
    group, score = nearest(line(1.9, samples=20), groups, test)
    # w = 20 * 500 / 520 = 19.23, r = w 0.1^2.
    assert group == 1
    assert score == pytest.approx(0.1923 - 2 * np.sqrt(2), abs=1e-4)
    assert nearest(line(7, samples=20), groups, test)[1] > test.tau


def test_who_shares_no_class_joins_the_largest_group() -> None:
    groups = ClassMeans.of(np.zeros((2, 2, 1)), [[10, 0], [30, 0]])
    stranger = ClassMeans.of(np.zeros((1, 2, 1)), [[0, 10]])
    assert nearest(stranger, groups, MergeTest(most=4)) == (1, -np.inf)
