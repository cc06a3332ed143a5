"""Class means are asked for only by who wants them, and refused where they lie."""

from typing import Any

import pytest

from common import wire
from common.settings import Settings
from common.task import Task
from server_app.fleet.agreement import Agreement
from server_app.fleet.stated_statistic import impossible_statistic
from tests.server_app.strategies.handmade import profile

PROJECTIONS = 2
SETTINGS = Settings.from_run_config({"dataset": "digits"})
RIGHT: dict[str, Any] = {
    "statistic_means": [0.5] * 20,
    "statistic_counts": [3] * 10,
    "statistic_covariance": [1.0, 0.0, 1.0],
}


def task() -> Task:
    return Agreement(SETTINGS).task


def test_what_was_asked_for() -> None:
    assert impossible_statistic(profile(**RIGHT), task(), PROJECTIONS) == ""
    assert impossible_statistic(profile(), task(), 0) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({key: [] for key in RIGHT}, "states no class means"),
        ({"statistic_means": [0.5] * 19}, "19 values of class means"),
        ({"statistic_counts": [3] * 9}, "9 counts"),
        ({"statistic_covariance": [1.0]}, "1 covariances"),
        ({"statistic_counts": [11] * 10}, "110 samples, of 100"),
        ({"statistic_covariance": [-1.0, 0.0, 1.0]}, "that no samples have"),
        ({"statistic_covariance": [1.0, 2.0, 3.0]}, "that no samples have"),
    ],
)
def test_what_was_not(changes: dict[str, Any], reason: str) -> None:
    said = profile(**{**RIGHT, **changes})
    assert reason in impossible_statistic(said, task(), PROJECTIONS)


def test_features_that_go_together_or_never_vary_are_possible() -> None:
    for covariance in ([1.0, 2.0, 4.0], [0.0, 0.0, 0.0]):
        said = profile(**{**RIGHT, "statistic_covariance": covariance})
        assert impossible_statistic(said, task(), PROJECTIONS) == ""


def test_unasked_it_is_refused() -> None:
    assert "0 and 0 were asked" in impossible_statistic(profile(**RIGHT), task(), 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("statistic_means", [float("nan")]),
        ("statistic_means", [1e8]),
        ("statistic_counts", [-1]),
        ("statistic_covariance", ["1"]),
        ("statistic_covariance", [1e300]),
    ],
)
def test_what_is_no_number_does_not_arrive(key: str, value: Any) -> None:
    with pytest.raises(wire.WireError, match=key.replace("_", "-")):
        profile(**{key: value})


def test_a_query_asks_only_for_who_wants_it() -> None:
    plain = wire.decode_query(Agreement(SETTINGS).query())
    asks = wire.decode_query(Agreement(SETTINGS, PROJECTIONS).query())
    assert plain is not None
    assert asks is not None
    assert (plain.statistic_seed, plain.projections) == (None, 0)
    assert asks.statistic_seed is not None
    assert asks.projections == PROJECTIONS


def test_the_largest_answer_has_room_for_it() -> None:
    largest: dict[str, Any] = {
        "statistic_means": [-1.23456789e-6] * (10 * 128),
        "statistic_counts": [10**9] * 10,
        "statistic_covariance": [-1.23456789e-6] * (128 * 129 // 2),
    }
    content = wire.encode_query_reply(profile(**largest))
    agreement = Agreement(SETTINGS, 128)
    found = wire.decode_query_reply(content, agreement.largest_answer)
    assert len(found.statistic_means) == 1280
