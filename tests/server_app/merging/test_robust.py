"""Robust merging against hand-computed numbers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SettingsError
from common.settings.sections import MergeSettings
from server_app.merging.means import Coordinates, PartMeans
from server_app.merging.robust import merging_rule, withstands

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


@pytest.mark.parametrize(
    ("rule", "share", "holders", "liars"),
    [
        ("mean", 0.2, 5, 0),
        ("clipped", 0.2, 50, 0),
        ("trimmed-mean", 0.2, 4, 0),
        ("trimmed-mean", 0.2, 5, 1),
        ("trimmed-mean", 0.4, 3, 1),
        ("trimmed-mean", 0.4, 2, 0),
        ("trimmed-mean", 0.49, 5, 2),
        ("median", 0.2, 1, 0),
        ("median", 0.2, 2, 0),
        ("median", 0.2, 3, 1),
        ("median", 0.2, 4, 1),
        ("median", 0.2, 5, 2),
    ],
)
def test_how_many_liars_a_rule_withstands(
    rule: str, share: float, holders: int, liars: int
) -> None:
    assert withstands(MergeSettings(merging=rule, trim_share=share), holders) == liars


def test_of_a_rule_of_ones_own_nobody_knows() -> None:
    assert withstands(MergeSettings(merging="module:attr"), 5) is None


@given(
    honest=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9),
    rule=st.sampled_from(["trimmed-mean", "median"]),
    share=st.floats(0, 0.49),
    data=st.data(),
)
def test_so_many_liars_stay_within_the_range_of_the_honest(
    honest: list[float], rule: str, share: float, data: st.DataObject
) -> None:
    settings = MergeSettings(merging=rule, trim_share=share)
    lies = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), max_size=9))
    if len(lies) > (withstands(settings, len(honest) + len(lies)) or 0):
        return
    model, sums = {PART: np.zeros(1, np.float32)}, merging_rule(settings)
    for value in honest + lies:
        sums.add(PART, np.array([value], np.float32), 1.0)
    sums.apply(model)
    assert min(honest) - 1e-6 <= model[PART][0] <= max(honest) + 1e-6


@pytest.mark.parametrize("rule", ["mean", "clipped", "trimmed-mean", "median"])
def test_experts_of_too_few_holders_are_dropped(rule: str) -> None:
    sums, one = sums_of(rule), np.ones(1, np.float32)
    for part, holders in {"extractor": 1, "expert.0": 1, "expert.2": 2}.items():
        for _ in range(holders):
            sums.add(part, one, 1.0)
    sums.add("expert.0", one, 0.0)  # idle: holds nothing that counts
    with pytest.raises(RuntimeError), sums.whole():
        sums.add("expert.0", one, 1.0)
        raise RuntimeError
    assert sums.drop_experts(2) == [0]
    model = {part: np.zeros(1, np.float32) for part in ("extractor", "expert.0")}
    model["expert.2"] = np.zeros(1, np.float32)
    sums.apply(model)
    values = {part: float(vector[0]) for part, vector in model.items()}
    assert values == {"extractor": 1.0, "expert.0": 0.0, "expert.2": 1.0}


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_holders_are_counted_anew_in_every_round(rule: str) -> None:
    sums, one = sums_of(rule), np.ones(1, np.float32)
    for _ in range(2):
        sums.add("expert.0", one, 1.0)
        assert sums.drop_experts(2) == [0]
        sums.add("expert.1", one, 1.0)
        sums.add("expert.1", one, 1.0)
        assert sums.drop_experts(2) == []
        sums.clear()


def test_none_is_dropped_by_default() -> None:
    sums = sums_of("mean")
    sums.add(PART, np.ones(1, np.float32), 1.0)
    assert sums.drop_experts(1) == []
