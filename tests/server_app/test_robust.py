"""Robust merging against hand-computed numbers."""

import numpy as np
import pytest

from server_app.robust import merging_rule

PART = "expert.0"


def merged(
    rule: str, *deltas: list[float], weights: list[float] | None = None
) -> list[float]:
    model = {PART: np.zeros(len(deltas[0]), np.float32)}
    sums = merging_rule(rule, clip_norm=5.0, trim_share=0.25)
    for delta, weight in zip(deltas, weights or [1.0] * len(deltas), strict=True):
        sums.add(PART, np.array(delta, np.float32), weight)
    sums.apply(model)
    return model[PART].tolist()


def test_mean_is_moved_by_one_liar_and_the_others_are_not() -> None:
    honest, liar = [[1.0], [2.0], [3.0]], [1000.0]
    assert merged("mean", *honest, liar) == [251.5]
    assert merged("median", *honest, liar) == [2.5]
    assert merged("trimmed-mean", *honest, liar) == [2.5]


def test_clipping_keeps_the_direction() -> None:
    # Norm 50 becomes 5: (30, 40) -> (3, 4); (0, 1) stays.
    assert merged("clipped", [30.0, 40.0]) == pytest.approx([3.0, 4.0])
    assert merged("clipped", [30.0, 40.0], [1.0, 0.0]) == pytest.approx([2.0, 2.0])


def test_median_of_an_odd_number_is_the_middle_one() -> None:
    assert merged("median", [9.0], [1.0], [2.0]) == [2.0]


def test_two_holders_are_averaged_not_trimmed_away() -> None:
    assert merged("trimmed-mean", [1.0], [3.0]) == [2.0]
    assert merged("median", [1.0]) == [1.0]


def test_a_delta_without_weight_does_not_vote() -> None:
    assert merged("median", [1.0], [2.0], [500.0], weights=[3, 5, 0]) == [1.5]


@pytest.mark.parametrize("rule", ["mean", "clipped", "trimmed-mean", "median"])
def test_order_does_not_matter(rule: str) -> None:
    rng = np.random.default_rng(0)
    deltas = [rng.normal(size=20).tolist() for _ in range(7)]
    assert merged(rule, *deltas) == merged(rule, *deltas[::-1])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", [2.0, 5.0, 8.0, 0.0]),
        ("median", [2.0, 4.0, 8.0, 0.0]),
        ("trimmed-mean", [2.0, 5.0, 8.0, 0.0]),
    ],
)
def test_coordinates_are_merged_over_those_who_held_them(
    rule: str, expected: list[float]
) -> None:
    model = {PART: np.zeros(4, np.float32)}
    sums = merging_rule(rule, clip_norm=5.0, trim_share=0.25)
    for positions, values in (
        ([0, 1], [1.0, 3.0]),
        ([1, 0], [4.0, 3.0]),
        ([1, 2], [8.0, 8.0]),
    ):
        sums.add_at(PART, 4, np.array(positions), np.array(values, np.float32), 2.0)
    sums.apply(model)
    assert model[PART].tolist() == expected


def test_clipping_a_sub_model_looks_at_what_was_sent() -> None:
    model = {PART: np.zeros(3, np.float32)}
    sums = merging_rule("clipped", clip_norm=5.0, trim_share=0.0)
    sums.add_at(PART, 3, np.array([2, 0]), np.array([30, 40], np.float32), 1.0)
    sums.apply(model)
    assert model[PART].tolist() == pytest.approx([4.0, 0.0, 3.0])
