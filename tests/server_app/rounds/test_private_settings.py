"""Who can be private: strategies and settings that epsilon holds with."""

from typing import Any

import pytest

from common.errors import SettingsError
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.rounds import private_round
from server_app.strategies import STRATEGIES, find_strategy
from tests.server_app.rounds.private_runs import SMALL

PUBLIC = {"flex-moe", "flex-moe-plus", "greedy", "random", "round-robin"}
DENSE = {"fedavg", "fedprox", "fedavg-ft", "fedper", "fedrep", "fedbn", "ditto", "apfl"}


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_a_strategy_that_only_sums_can_be_private_and_others_refuse(name: str) -> None:
    cls = find_strategy(name)
    config: dict[str, Any] = {**SMALL, "strategy": name, "reserved-samples": 50}
    if name == "fedbn":
        config |= {"backbone": "cnn", "norm": "batch"}
    settings = Settings.from_run_config(config)
    strategy = cls(settings, model_spec(settings, dataset_of(settings)))
    able = {*PUBLIC, *DENSE, "system-level", "local"}
    assert (strategy.not_private() == "") == (name in able)
    if name not in able:
        with pytest.raises(SettingsError, match=f"not allowed with strategy '{name}'"):
            private_round.Privacy(strategy)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"merging": "median"}, "merging = 'median' is not allowed with privacy"),
        ({"over-selection": 0.5, "clients-per-round": 2}, "over-selection = 0.5"),
        ({"fitness-from": "server"}, "fitness-from = 'server'"),
        ({"min-holders": 2}, "min-holders = 2"),
        ({"drift": 0.1}, "drift = 0.1 is not allowed"),
        ({"train-seconds": 5.0}, "how many samples"),
        ({"client-metrics": "os:path"}, "client-metrics = 'os:path' is not allowed"),
        ({"sampling-rate": 0.5, "clients-per-round": 2}, "sampling-rate says who"),
        ({"sampling-rate": 0.5, "private-reports": "open"}, "who was asked"),
        ({"sampling-rate": 0.5, "upload-seconds": 9.0}, "a link is known"),
        ({"noise-multiplier": 0.0}, "noise-multiplier = 0.0 is not allowed"),
        ({"privacy": "centrl"}, "did you mean 'central'"),
    ],
)
def test_settings_that_epsilon_would_not_hold_with_are_refused(
    changes: dict[str, Any], error: str
) -> None:
    with pytest.raises(SettingsError, match=error):
        Settings.from_run_config({**SMALL, **changes})
    if "privacy" not in changes and "noise-multiplier" not in changes:
        allowed = {"privacy": "none", "sampling-rate": 0.0}
        Settings.from_run_config({**SMALL, **changes, **allowed})
