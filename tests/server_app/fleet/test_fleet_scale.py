"""Who can be part of one scale, what is odd about it, and that its bits are kept."""

from typing import Any

import numpy as np
import pytest

from common.task import Moments, Task, parse_task
from server_app.fleet.fleet_scale import FleetRange, misfits
from server_app.run_folder.checkpoint import decode, encode

SERIES = parse_task(
    {"kind": "series", "classes": ["a", "b"], "channels": ["ax", "ay"], "length": 8}
)
TABLE = parse_task(
    {
        "kind": "table",
        "classes": ["no", "yes"],
        "columns": ["alarms", {"name": "mode", "values": ["a", "b"]}],
    }
)
RNG = np.random.default_rng(5)


def windows(scale: float = 1.0, shift: float = 0.0, samples: int = 50) -> Moments:
    return Moments.of(RNG.normal(shift, scale, (2, 8 * samples)))


def rows(*alarms: float) -> Moments:
    mode = np.arange(len(alarms)) % 2
    return Moments.of(np.array([alarms, mode, 1 - mode], dtype=float))


def refused(task: Task, *devices: Moments) -> list[int]:
    return [*misfits(dict(enumerate(devices)), task)]


def test_it_is_the_scale_of_all_samples_together() -> None:
    parts = [RNG.normal(m, s, (2, 8 * n)) for m, s, n in ((0, 1, 3), (4, 2, 9))]
    found = FleetRange.of([Moments.of(part) for part in parts]).moments
    pooled = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(found.mean, pooled.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, pooled.std(axis=1), rtol=1e-12)


def test_a_claim_of_1e30_is_out_and_the_others_are_not() -> None:
    wild = windows(1e30)
    assert refused(SERIES, windows(), wild) == [1]
    assert refused(SERIES, wild, windows(), windows()) == [0]
    assert refused(SERIES, windows(), windows(), windows(), wild, wild) == [3, 4]
    reason = misfits({7: windows(), 8: wild}, SERIES)[8]
    assert reason.startswith("its channel 'a")
    assert "one scale cannot fit both" in reason and "e+3" in reason


def test_one_wild_value_among_many_is_out() -> None:
    x = RNG.normal(size=(2, 800))
    x[1, 3] = 1e30
    found = misfits({0: windows(), 1: windows(), 2: Moments.of(x)}, SERIES)
    assert [*found] == [2]
    assert "channel 'ay'" in found[2]


@pytest.mark.parametrize("factor", [9.8, 256])
def test_another_unit_may_be_part_of_it(factor: float) -> None:
    assert refused(SERIES, windows(), windows(factor)) == []
    assert refused(SERIES, windows(), windows(), windows(factor)) == []


def test_a_sensor_that_counts_sixteen_thousand_a_g_is_out() -> None:
    assert refused(SERIES, windows(), windows(), windows(16384)) == [2]
    # Where most count so, it is the scale; the others are small, and spoil nothing.
    assert refused(SERIES, windows(), windows(16384), windows(16384)) == []


def test_sites_of_other_classes_are_part_of_it() -> None:
    # One has only what is cold, another only what is hot.
    cold, hot = windows(0.1, 20), windows(0.1, 60)
    assert refused(SERIES, cold, hot) == []
    assert FleetRange.of([cold, hot]).warning(hot, SERIES) == ""


def test_what_a_few_have_much_of_and_most_nothing_is_no_misfit() -> None:
    quiet, busy = rows(0, 0, 0, 1), rows(0, 30, 0, 45)
    nothing = rows(0, 0, 0, 0)
    assert refused(TABLE, quiet, nothing, nothing, busy) == []
    assert refused(TABLE, nothing, rows(0, 0, 0, 1e9)) == []
    assert refused(TABLE, nothing, nothing) == []


def test_two_devices_that_reach_far_where_the_other_does_not() -> None:
    a = np.array([RNG.normal(size=80), 1e5 * RNG.normal(size=80)])
    b = a[::-1]
    # Columns that were swapped: one of the two has to be told.
    assert len(refused(SERIES, Moments.of(a), Moments.of(b))) == 1


def test_a_device_alone_is_its_own_scale() -> None:
    assert refused(SERIES, windows(1e30)) == []


@pytest.mark.parametrize(
    ("scale", "shift"), [(9.8, 0.0), (10.0, 0.0), (0.1, 0.0), (1.0, 273.0)]
)
def test_a_range_that_differs_tenfold_is_told(scale: float, shift: float) -> None:
    usual, odd = [windows(), windows()], windows(scale, shift)
    fleet = FleetRange.of([*usual, odd])
    told = fleet.warning(odd, SERIES)
    assert told.startswith("its range differs tenfold from the fleet's: its channel 'a")
    assert [fleet.warning(each, SERIES) for each in usual] == ["", ""]


def test_a_range_that_differs_threefold_is_not() -> None:
    fleet = FleetRange.of([windows(), windows(), windows(3)])
    assert fleet.warning(windows(3), SERIES) == ""
    assert fleet.warning(windows(1 / 3), SERIES) == ""


def test_values_far_from_0_are_told_of_who_comes_later() -> None:
    fleet = FleetRange.of([windows(1, 100), windows(1, 100)])
    assert fleet.warning(windows(1, 100.5), SERIES) == ""
    told = fleet.warning(windows(1, 130), SERIES)
    assert told.startswith("values far from 0 +- 1 after scaling: channel 'ax' has ")


def test_categories_have_no_scale() -> None:
    fleet = FleetRange.of([rows(1, 2, 3, 4), rows(1, 2, 3, 4)])
    only_a = Moments.of(np.array([[1.0, 2, 3, 4], [1, 1, 1, 1], [0, 0, 0, 0]]))
    assert fleet.warning(only_a, TABLE) == ""
    assert FleetRange.of([only_a]).constant(TABLE) == ""


def test_a_constant_column_is_told_once_for_all() -> None:
    same = rows(5, 5, 5, 5)
    told = FleetRange.of([same, same]).constant(TABLE)
    assert told == "constant column on all devices: 'alarms' is 5"
    assert FleetRange.of([same, rows(5, 5, 5, 6)]).constant(TABLE) == ""


def test_what_a_checkpoint_keeps_comes_back_bit_for_bit() -> None:
    fleet = FleetRange.of([windows(1e-7, 3), windows(2.5)])
    restored = FleetRange.restored(decode(encode({"scale": fleet.state()}))["scale"])

    def bits(each: FleetRange) -> list[Any]:
        return [v.tobytes() for v in (*vars(each.moments).values(), each.least)]

    assert bits(restored) == bits(fleet)
    assert restored.most.tobytes() == fleet.most.tobytes()
