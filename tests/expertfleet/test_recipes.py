"""Recipes: each can be read and used, those that need nothing are run."""

import tomllib
from pathlib import Path

import pytest

from common.settings import Settings
from expertfleet.cli import main
from expertfleet.notebook import run
from server_app.launcher.config import RunConfigError, parse_run_config
from server_app.launcher.recipes import RECIPES, recipes, what_it_is
from server_app.strategies import find_strategy

NEED_NOTHING = ("quick", "weak-link", "unreliable-fleet", "privacy")


def test_there_are_those_that_were_promised() -> None:
    assert set(recipes()) == {
        *NEED_NOTHING,
        "paper",
        "own-data",
        "text",
        "pretrained",
    }


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_of_settings_and_says_when_to_use_it(name: str) -> None:
    text = (RECIPES / f"{name}.toml").read_text()
    found = tomllib.loads(text)
    assert parse_run_config([name]) == found
    settings = Settings.from_run_config(found)
    find_strategy(settings.run.strategy)
    head = text.split("\n\n")[0]
    assert "# Use when " in text and "# Figures: " in text
    assert head and len(what_it_is(RECIPES / f"{name}.toml")) <= 90


@pytest.mark.slow
@pytest.mark.parametrize("name", NEED_NOTHING)
def test_a_recipe_that_needs_nothing_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {
        "num_rounds": 2,
        "train_samples": 400,
        "test_samples": 100,
        "eval_every": 1,
    }
    found = run(name, clients=8, quiet=True, **small)
    assert list(found.rounds.index) == [1, 2]
    given = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    given |= {key.replace("_", "-"): value for key, value in small.items()}
    # A capacity is kept as text: it may be one for each tier.
    kept = {key: str(found.settings[key]) for key in given}
    assert kept == {key: str(value) for key, value in given.items()}


def test_what_is_later_wins(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("lr = 0.5\nnum-rounds = 7\n")
    quick = parse_run_config(["quick"])
    found = parse_run_config(["num-rounds=3", "quick", str(file), "lr=0.25"])
    assert found == {**quick, "lr": 0.25, "num-rounds": 7}


def test_a_recipe_that_there_is_not_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RunConfigError, match="did you mean 'quick'"):
        parse_run_config(["quik"])
    assert main(["recipes", "quik"]) == 2
    assert "did you mean 'quick'" in capsys.readouterr().err


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in recipes():
        assert any(line.startswith(f"{name} ") for line in lines)
    assert main(["recipes", "quick"]) == 0
    assert capsys.readouterr().out == (RECIPES / "quick.toml").read_text()
