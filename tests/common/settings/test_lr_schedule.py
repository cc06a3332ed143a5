"""The rate of a round, by hand, through the settings of a run."""

import math

import pytest

from common.settings import Settings, SettingsError

HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [8, 8, 8, 8]),
        # A half wave over four rounds: cos of 0, 45, 90 and 135 degrees.
        ("cosine", 0, [8, 4 * (1 + HALF), 4, 4 * (1 - HALF)]),
        ("cosine:0.5", 0, [8, 4 + 2 * (1 + HALF), 6, 4 + 2 * (1 - HALF)]),
        # Two rounds of rising, then over two rounds: 0 and 90 degrees.
        ("cosine", 2, [8 / 3, 16 / 3, 8, 4]),
        ("step:2:0.25", 0, [8, 8, 2, 2]),
        ("step:1:0.5", 1, [4, 8, 4, 2]),
        ("step", 0, [8, 8, 8, 8]),
    ],
)
def test_rates_by_hand(schedule: str, warmup: int, expected: list[float]) -> None:
    settings = Settings.from_run_config(
        {"lr": 8.0, "lr-schedule": schedule, "lr-warmup": warmup, "num-rounds": 4}
    )
    rates = [settings.training_in(number).lr for number in range(1, 5)]
    assert rates == pytest.approx(expected)
    assert settings.training_in(0).lr == rates[0]  # outside a round
    again = Settings.from_run_config(settings.to_run_config())
    assert again == settings


@pytest.mark.parametrize(
    "bad",
    [
        *({"lr-schedule": each} for each in ("cosin", "cosine:2", "step:0:0.5")),
        *({"lr-schedule": each} for each in ("constant:1", "step:2", "step:1:nan")),
        {"lr-warmup": 30},
    ],
)
def test_what_is_no_schedule_is_one_line(bad: dict[str, str | int]) -> None:
    [(key, value)] = bad.items()
    with pytest.raises(SettingsError, match=f"^{key} = {value!r} is not allowed: .*$"):
        Settings.from_run_config(bad)
