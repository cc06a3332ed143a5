"""Run-config: Flower's syntax, checked before anything starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from server_app.launcher.config import RunConfigError, parse_run_config, resolve

DEFAULTS = {"strategy": "flex-moe", "num-rounds": 30, "output-dir": "results"}


def test_values_have_their_toml_types() -> None:
    texts = ['a="x y" b=2', "c=0.5 d=true e.f='z'"]
    assert parse_run_config(texts) == {
        "a": "x y",
        "b": 2,
        "c": 0.5,
        "d": True,
        "e.f": "z",
    }


def test_a_toml_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('num-rounds = 5\n[table]\nkey = "value"\n')
    assert parse_run_config([str(file)]) == {"num-rounds": 5, "table.key": "value"}


def test_pairs_and_files_are_laid_over_each_other(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('lr = 0.1\nstrategy = "random"\n')
    found = parse_run_config(["seed=1 lr=0.5", str(file), 'strategy="greedy"'])
    assert found == {"seed": 1, "lr": 0.1, "strategy": "greedy"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num-rounds 5", "cannot read 'num-rounds 5'"),
        ("num-rounds = 5", "without spaces around '='"),
        ("strategy=random", "a text in quotes"),
        ("a=1 a=2", "each key once"),
        ("a=[1]", "needs to be of type"),
        ("nowhere.toml", "No such file"),
    ],
)
def test_bad_syntax_is_one_line(text: str, said: str) -> None:
    with pytest.raises(RunConfigError, match="run-config: ") as caught:
        parse_run_config([text])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(RunConfigError, match="did you mean 'num-rounds'"):
        resolve({"num-round": 5}, DEFAULTS, Path("/base"))


def test_relative_paths_start_where_the_caller_stands(tmp_path: Path) -> None:
    results = str(tmp_path / "results")
    assert resolve({}, DEFAULTS, tmp_path) == {"output-dir": results}
    given = {"output-dir": str(tmp_path / "abs"), "num-rounds": 1}
    assert resolve(given, DEFAULTS, Path("/base")) == given
    assert resolve({"output-dir": ""}, DEFAULTS, tmp_path) == {"output-dir": ""}
    fleet = resolve({"fleet-list": "f.json"}, {**DEFAULTS, "fleet-list": ""}, tmp_path)
    assert fleet["fleet-list"] == str(tmp_path / "f.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["x" * 300, "~no-such-user/results"])
def test_a_place_that_cannot_be_is_one_line(place: str, tmp_path: Path) -> None:
    with pytest.raises(RunConfigError, match=r"^output-dir = ") as caught:
        resolve({"output-dir": place}, DEFAULTS, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_validator_sees_the_merged_settings() -> None:
    seen: dict[str, Any] = {}

    def refuse(config: Mapping[str, Any]) -> None:
        seen.update(config)
        raise ValueError("num-rounds = 0 is not\n  allowed")

    with pytest.raises(RunConfigError, match=r"^num-rounds = 0 is not allowed$"):
        resolve({"num-rounds": 0}, DEFAULTS, Path("/base"), refuse)
    assert seen == DEFAULTS | {"num-rounds": 0}
