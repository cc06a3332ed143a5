"""Settings: what is accepted, and that every refusal is one helpful line."""

import tomllib
from pathlib import Path

import pytest

from common.errors import SettingsError
from common.seeding import stream
from common.settings import Settings
from common.settings.capacity_tiers import CapacityTiers

ROOT = Path(__file__).resolve().parents[3]


def test_pyproject_lists_every_setting_with_its_default() -> None:
    # Flower refuses run-config keys that pyproject.toml does not list.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    config = project["tool"]["flwr"]["app"]["config"]
    assert Settings.from_run_config(config) == Settings()
    assert set(config) == set(Settings().to_run_config())


def test_round_trip_through_a_run_config() -> None:
    settings = Settings.from_run_config(
        {"expert-capacity": "1:0.5,2:0.5", "lr": 1, "partition": "iid", "seed": 9}
    )
    assert settings.training.lr == 1.0
    assert Settings.from_run_config(settings.to_run_config()) == settings


def test_devices_with_data_of_their_own_differ_as_they_do() -> None:
    config = {"task": "task.toml", "partition": "rotation:4+iid"}
    with pytest.raises(SettingsError) as error:
        Settings.from_run_config(config)
    assert str(error.value) == (
        "partition = 'rotation:4+iid' is not allowed with task: devices with data of "
        "their own differ as they do"
    )


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().run.seed = 3  # type: ignore[misc]


def test_a_round_that_waits_for_fewer_replies_than_it_needs_is_refused() -> None:
    text = r"min-replies = 5 is not allowed: .* clients-per-round = 2 replies"
    for over_selection in (0.0, 1.0):
        config = {"clients-per-round": 2, "min-replies": 5}
        with pytest.raises(SettingsError, match=text):
            Settings.from_run_config({**config, "over-selection": over_selection})
    Settings.from_run_config({"clients-per-round": 5, "min-replies": 5})
    Settings.from_run_config({"clients-per-round": 0, "min-replies": 5})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("num-rounds", "two", ["num-rounds = 'two'", "integer", ">= 1"]),
        ("num-rounds", 0, ["num-rounds = 0", "greater than or equal to 1"]),
        ("num-rounds", True, ["num-rounds = True", "integer"]),
        ("num-rounds", 2.5, ["num-rounds = 2.5", "integer"]),
        ("expert-capacity", 99, ["expert-capacity = '99'", "1 to num-experts = 8"]),
        ("expert-capacity", "1:0.5,2:0.6", ["expert-capacity", "sum to 1"]),
        ("expert-capacity", "1:0.5,2", ["tier '2'", "EXPERTS:SHARE"]),
        ("expert-capacity", 0, ["expert-capacity = 0", "at least 1"]),
        ("partition", "dirchlet:0.3", ["partition", "did you mean 'dirichlet:0.3'?"]),
        ("partition", "dirichlet:-1", ["partition", "dirichlet:-1", "above 0"]),
        ("partition", "rotation:1+iid", ["rotation:1", "2 to 360 groups"]),
        ("partition", "rotatoin:4+iid", ["did you mean 'rotation:4'?"]),
        ("optimizer", "sdg", ["optimizer = 'sdg'", "did you mean 'sgd'?"]),
        ("solver", "flo", ["solver = 'flo'", "did you mean 'flow'?"]),
        ("backbone", "resnet9", ["backbone = 'resnet9'", "did you mean 'resnet"]),
        ("lr", float("nan"), ["lr = nan"]),
        ("lr", 0, ["lr = 0", "greater than 0"]),
        ("top-k", 9, ["top-k = 9", "num-experts = 8"]),
        ("seed", -1, ["seed = -1"]),
        ("fitnes", "loss", ["unknown setting 'fitnes'", "did you mean 'fitness'?"]),
        ("held-out", 1.0, ["held-out = 1.0", "less than 1"]),
        ("output-dir", "", ["output-dir = ''", "at least 1 character"]),
        ("data-dir", "", ["data-dir = ''", "at least 1 character"]),
        ("output-dir", "a\0b", [r"output-dir = 'a\x00b'", "no control characters"]),
        ("state-dir", "a\nb", [r"state-dir = 'a\nb'", "no control characters"]),
        ("dataset", "\x1b[2J", [r"dataset = '\x1b[2J'", "no control characters"]),
        ("pretrained", "\ud800", [r"pretrained = '\ud800'", "half characters"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_helps(
    key: str, value: object, said: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_run_config({key: value})
    text = str(caught.value)
    assert "\n" not in text
    for piece in said:
        assert piece in text


def test_two_wrong_settings_are_both_named() -> None:
    with pytest.raises(SettingsError, match=r"lr = 0 .*num-rounds = 0 "):
        Settings.from_run_config({"lr": 0, "num-rounds": 0})


@pytest.mark.parametrize("text", ["mu", "mu=", "mu=1 decay=2", "mu=1, mu=2"])
def test_malformed_strategy_options(text: str) -> None:
    settings = Settings.from_run_config({"strategy-options": text})
    with pytest.raises(SettingsError, match="strategy-options"):
        settings.run.parsed_strategy_options()


def test_strategy_options_are_toml_pairs() -> None:
    settings = Settings.from_run_config({"strategy-options": "mu=0.1, mode='x'"})
    assert settings.run.parsed_strategy_options() == {"mu": 0.1, "mode": "x"}


def test_tiers_are_apportioned_by_largest_remainder() -> None:
    tiers = CapacityTiers.parse("1:0.5,2:0.3,4:0.2")
    # 7 clients: quotas 3.5, 2.1, 1.4 -> 3, 2, 1 and the last one to the first tier.
    budgets = tiers.budgets(7, stream(0, "capacity"))
    assert sorted(budgets.tolist()) == [1, 1, 1, 1, 2, 2, 4]
    assert str(tiers) == "1:0.5,2:0.3,4:0.2"
    assert tiers.largest == 4
