"""Bounds relative to medians, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_app.merging.bounds import WINDOW, NormBounds, lower_median, most_samples


def after(*rounds: list[dict[str, float]], factor: float = 2.0) -> NormBounds:
    bounds = NormBounds(factor)
    for replies in rounds:
        bounds.learn(replies)
    return bounds


def test_what_is_above_the_bound_is_cut_to_the_median() -> None:
    bounds = after([{"extractor": 1.0}, {"extractor": 2.0}, {"extractor": 9.0}])
    # The median is 2, the bound 4; on the bound is not above it.
    assert bounds.cuts({"extractor": 8.0}) == {"extractor": 0.25}
    assert bounds.cuts({"extractor": 4.0}) == {}


def test_experts_are_of_one_kind_and_each_client_has_one_say() -> None:
    hoarder = {f"expert.{e}": 100.0 for e in range(8)}
    bounds = after([hoarder, {"expert.0": 1.0}, {"expert.9": 3.0}])
    # The medians of the three are 100, 1 and 3; of 3, 12 is four times.
    assert bounds.cuts({"expert.5": 12.0}) == {"expert.5": 0.25}


def test_a_kind_that_hardly_moves_is_held_against_all_parts() -> None:
    replies = [{"extractor": 1.0, "expert.0": 1.0, "gate": 0.001}] * 3
    bounds = after(replies)
    # Each client's median of its three parts is 1.
    assert bounds.cuts({"gate": 1.5}) == {}
    assert bounds.cuts({"gate": 4.0}) == {"gate": 0.25}


def test_the_largest_median_of_the_last_rounds_counts() -> None:
    rounds = [[{"extractor": value}] for value in (8.0, 1.0, 4.0, 2.0)]
    bounds = after(*rounds)
    assert bounds.recent == {"extractor": [1, 4, 2], "": [1, 4, 2]}
    assert bounds.cuts({"extractor": 16.0}) == {"extractor": 0.25}
    assert len(bounds.recent["extractor"]) == WINDOW


def test_what_stood_still_says_nothing() -> None:
    bounds = after([{"extractor": 0.0}, {"extractor": 0.0}, {"extractor": 3.0}])
    assert bounds.recent["extractor"] == [3.0]
    assert after([{"extractor": 0.0}]).cuts({"extractor": 5.0}) == {}


def test_a_first_round_is_judged_by_itself_and_no_other_is() -> None:
    bounds, replies = NormBounds(2.0), {}
    for name, change in (("a", 1.0), ("b", 2.0), ("c", 6.0)):
        replies[name] = {"extractor": change}
    assert bounds.cuts({"extractor": 6.0}) == {}
    assert bounds.beyond(replies) == {"c": pytest.approx(3.0)}
    bounds.learn(replies.values())
    assert bounds.beyond(replies) == {}


def test_a_kind_that_comes_later_is_held_against_nothing_in_its_first_round() -> None:
    # A warm-up of experts alone says nothing of a gate that trains for the first time.
    bounds = NormBounds(10.0)
    bounds.learn([{"expert.0": 0.001}, {"expert.1": 0.002}])
    gates = {"a": {"gate": 1.0}, "b": {"gate": 1.5}, "c": {"gate": 30.0}}
    assert bounds.cuts(gates["c"]) == {}
    assert bounds.beyond(gates) == {}
    bounds.learn([gates["a"], gates["b"]])
    assert bounds.cuts(gates["c"]) == {"gate": pytest.approx(1 / 30)}


def test_without_a_bound_nothing_is_cut() -> None:
    replies = [{"extractor": 1.0}, {"extractor": 1.0}, {"extractor": 1e30}]
    bounds = after(replies, factor=0.0)
    assert bounds.cuts(replies[2]) == {}
    assert NormBounds(0.0).beyond({str(k): r for k, r in enumerate(replies)}) == {}


@given(
    honest=st.lists(st.floats(0.5, 2.0), min_size=3, max_size=12),
    data=st.data(),
)
def test_fewer_than_half_cannot_move_the_bound_beyond_the_honest(
    honest: list[float], data: st.DataObject
) -> None:
    liars = data.draw(
        st.lists(st.floats(0, 1e30), min_size=1, max_size=len(honest) - 1)
    )
    bounds = after([{"extractor": v} for v in honest + liars], factor=1.0)
    assert bounds.cuts({"extractor": 1e31})["extractor"] * 1e31 <= max(honest) * 1.0001


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=9), st.randoms())
def test_the_order_of_replies_does_not_matter(values: list[float], rng: object) -> None:
    replies = [{"extractor": value} for value in values]
    shuffled = replies[:]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert after(replies).state() == after(shuffled).state()


def test_state_goes_on_where_it_was() -> None:
    bounds = after([{"extractor": 1.0}], [{"extractor": 3.0}])
    other = NormBounds(2.0)
    other.load_state(bounds.state())
    for each in (bounds, other):
        each.learn([{"extractor": 5.0}])
    assert other.recent == bounds.recent


def test_lower_median() -> None:
    assert lower_median([5.0]) == 5
    assert lower_median([1.0, 1e12]) == 1
    assert lower_median([1.0, 2.0, 3.0, 1e12]) == 2
    assert lower_median([4.0, 3.0, 1e12]) == 4


def test_samples_count_up_to_so_many_medians() -> None:
    assert most_samples([100, 300, 200, 10**12], 3.0) == 600
    assert most_samples([100, 300], 0.0) is None
    assert most_samples([], 3.0) is None
    assert most_samples([0, 0, 5], 3.0) == 1


def test_an_infinite_change_moves_no_median() -> None:
    bounds = after([{"extractor": 1.0}, {"extractor": 1.0}, {"extractor": math.inf}])
    assert bounds.recent["extractor"] == [1.0]
    assert np.isfinite(bounds.recent[""]).all()
