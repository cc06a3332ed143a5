"""Robust merging against hand-computed numbers."""

from typing import Any

import numpy as np
import pytest

from common.errors import SettingsError
from common.settings.sections import MergeSettings
from server_app.merging.means import Coordinates, PartMeans
from server_app.merging.robust import merging_rule

PART = "expert.0"


def sums_of(rule: str) -> PartMeans:
    return merging_rule(MergeSettings(merging=rule, clip_norm=5.0, trim_share=0.25))


def merged(
    rule: str, *deltas: list[float], weights: list[float] | None = None
) -> list[float]:
    model = {PART: np.zeros(len(deltas[0]), np.float32)}
    sums = sums_of(rule)
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
    sums = sums_of(rule)
    for positions, values in (
        ([0, 1], [1.0, 3.0]),
        ([1, 0], [4.0, 3.0]),
        ([1, 2], [8.0, 8.0]),
    ):
        held = Coordinates(np.array(positions), 4)
        sums.add(PART, np.array(values, np.float32), 2.0, held)
    sums.apply(model)
    assert model[PART].tolist() == expected


def test_clipping_a_sub_model_looks_at_what_was_sent() -> None:
    model = {PART: np.zeros(3, np.float32)}
    sums = sums_of("clipped")
    held = Coordinates(np.array([2, 0]), 3)
    sums.add(PART, np.array([30, 40], np.float32), 1.0, held)
    sums.apply(model)
    assert model[PART].tolist() == pytest.approx([4.0, 0.0, 3.0])


def heaviest(deltas: Any, weights: Any, settings: MergeSettings) -> Any:
    """Whoever has the largest weight decides, scaled by a setting."""
    return settings.clip_norm * deltas[np.argmax(weights)]


def one_too_many(deltas: Any, weights: Any, settings: MergeSettings) -> Any:
    return np.zeros(deltas.shape[1] + 1)


def first(deltas: Any, weights: Any, settings: MergeSettings) -> Any:
    return deltas[0]


MINE = "tests.server_app.merging.test_robust"


def test_a_rule_of_ones_own_sees_deltas_weights_and_settings() -> None:
    # The second has weight 7; clip-norm is 5.
    assert merged(f"{MINE}:heaviest", [1.0, 1.0], [2.0, 3.0], weights=[3, 7]) == [
        10.0,
        15.0,
    ]


def test_a_rule_sees_the_same_whatever_the_order_of_arrival() -> None:
    rows = [[float(k), -float(k)] for k in range(1, 6)]
    assert merged(f"{MINE}:first", *rows) == merged(f"{MINE}:first", *rows[::-1])


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("meen", "merging = 'meen' is not allowed: .*did you mean 'mean'"),
        (f"{MINE}:PART", "PART' is not a function of \\(deltas, weights, settings"),
        (f"{MINE}:one_too_many", r"too_many' returned .*shape \(3,\): .*shape \(2,\)"),
    ],
)
def test_what_is_no_rule_is_one_error_that_names_it(rule: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        merged(rule, [1.0, 1.0])
