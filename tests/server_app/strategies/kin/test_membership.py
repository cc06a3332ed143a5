"""Who belongs to which group: at first, joining, and after a change."""

from typing import Any

import numpy as np

from common.wire import QueryReply
from server_app.grouping import MergeTest
from server_app.strategies.kin.membership import Membership
from tests.server_app.strategies.handmade import profile


def members(most: int = 3, noise: float = 0.0) -> Membership:
    return Membership(MergeTest(most=most), classes=1, projections=1, noise=noise)


def at(place: float, name: str = "c", samples: int = 101, **more: Any) -> QueryReply:
    """One class at a place of a line, a sample's standard deviation 1."""
    return profile(
        client=name,
        num_examples=samples,
        statistic_means=[place],
        statistic_counts=[samples],
        statistic_covariance=[1.0],
        **more,
    )


def test_the_first_fleet_is_grouped_and_told_of() -> None:
    found = members()
    notes = found.take_in([at(0, "a"), at(5, "b"), at(0.1, "c")])
    assert found.groups.tolist() == [0, 1, 0]
    assert found.count == 2
    assert notes == ["group 0: a, c", "group 1: b"]
    assert found.take_in([at(0, "a"), at(5, "b"), at(0.1, "c")]) == []


def test_who_joins_goes_by_one_message() -> None:
    found = members()
    first = [at(0), at(5)]
    found.take_in(first)
    notes = found.take_in([*first, at(4.9, "late", samples=20)])
    assert found.groups.tolist() == [0, 1, 1]
    assert notes == ["late is of group 1, by what it says of its samples"]


def test_who_is_like_nobody_founds_a_group_while_there_is_room() -> None:
    found = members(most=3)
    first = [at(0), at(5)]
    found.take_in(first)
    found.take_in([*first, at(20)])
    assert found.groups.tolist() == [0, 1, 2]
    assert found.count == 3
    found.take_in([*first, at(20), at(24)])  # no room: the nearest one
    assert found.groups.tolist() == [0, 1, 2, 2]
    assert found.count == 3


def test_who_says_something_new_is_moved() -> None:
    found = members()
    found.take_in([at(0), at(5), at(0.1), at(5.1)])
    notes = found.take_in([at(0), at(5), at(5.05, "moved"), at(5.1)])
    assert found.groups.tolist() == [0, 1, 1, 1]
    assert notes == ["moved is of group 1, by what it says of its samples"]


def test_who_is_alone_and_changes_stays_alone() -> None:
    found = members()
    found.take_in([at(0), at(5)])
    assert found.take_in([at(0), at(9)]) == []
    assert found.groups.tolist() == [0, 1]
    assert found.count == 2


def test_who_has_not_spoken_is_of_the_first_group_until_it_does() -> None:
    found = members()
    assert found.take_in([profile(), profile()]) == []
    assert found.groups.tolist() == [0, 0]
    found.take_in([profile(), at(0), at(5)])
    assert found.groups.tolist() == [0, 0, 1]


def test_noise_makes_samples_count_for_less() -> None:
    # n = 101 and s = 1: worth 101 / 102 of a sample. Then 1 apart is no evidence.
    for noise, groups in ((0.0, [0, 1]), (1.0, [0, 0])):
        found = members(noise=noise)
        found.take_in([at(0), at(1)])
        assert found.groups.tolist() == groups


def test_noise_of_another_shape_than_the_samples_makes_no_groups() -> None:
    """Clients of few samples blur every feature for itself, and these go together."""
    rng, features = np.random.default_rng(0), 4
    covariance = np.full((features, features), 0.99) + 0.01 * np.eye(features)
    said = [
        profile(
            client=f"c{row}",
            num_examples=7,
            statistic_means=rng.standard_normal(features).tolist(),
            statistic_counts=[7],
            statistic_covariance=covariance[np.triu_indices(features)].tolist(),
        )
        for row in range(12)
    ]
    found = Membership(MergeTest(most=4), classes=1, projections=features, noise=1.0)
    found.take_in(said)
    assert found.count == 1


def test_the_scatter_is_that_of_all_by_their_samples() -> None:
    found = Membership(MergeTest(most=2), classes=1, projections=2, noise=0.0)
    said = [
        profile(
            num_examples=n,
            statistic_means=[0.0, 0.0],
            statistic_counts=[n],
            statistic_covariance=covariance,
        )
        for n, covariance in ((10, [4.0, 0.0, 1.0]), (4, [8.0, 0.0, 5.0]))
    ]
    found.take_in(said)
    white = found.state()["whitener"]
    # (9 * 4 + 3 * 8) / (12 - 3) = 20 / 3 and (9 * 1 + 3 * 5) / (12 - 3) = 8 / 3.
    np.testing.assert_allclose(white @ white.T, np.diag([3 / 20, 3 / 8]), rtol=1e-5)


def test_its_state_is_a_value() -> None:
    first = [at(0), at(5)]
    found, again = members(), members()
    found.take_in(first)
    again.load_state(found.state())
    late = [*first, at(5.1), at(20)]
    assert again.take_in(late) == found.take_in(late)
    np.testing.assert_equal(again.state(), found.state())
