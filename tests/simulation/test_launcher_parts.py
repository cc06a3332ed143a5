"""What the launcher decides before and after the run, without starting one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from server_app.launcher.config import RunConfigError, parse_run_config, resolve
from server_app.launcher.log import LogFilter
from server_app.launcher.run import run_simulation

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


def test_relative_paths_start_where_the_caller_stands() -> None:
    assert resolve({}, DEFAULTS, Path("/base")) == {"output-dir": "/base/results"}
    given = {"output-dir": "/abs", "num-rounds": 1}
    assert resolve(given, DEFAULTS, Path("/base")) == given
    assert resolve({"output-dir": ""}, DEFAULTS, Path("/base")) == {"output-dir": ""}


def test_the_validator_sees_the_merged_settings() -> None:
    seen: dict[str, Any] = {}

    def refuse(config: Mapping[str, Any]) -> None:
        seen.update(config)
        raise ValueError("num-rounds = 0 is not\n  allowed")

    with pytest.raises(RunConfigError, match=r"^num-rounds = 0 is not allowed$"):
        resolve({"num-rounds": 0}, DEFAULTS, Path("/base"), refuse)
    assert seen == DEFAULTS | {"num-rounds": 0}


@pytest.mark.parametrize(
    ("nodes", "config", "cpus", "said"),
    [
        (0, "", 1, "num-supernodes = 0"),
        (2, "", 4096, "client-cpus = 4096"),
        (2, {"num-roundz": 1}, 1, "did you mean 'num-rounds'"),
    ],
)
def test_a_setting_that_cannot_be_used_ends_in_one_line_and_2(
    nodes: int,
    config: str | dict[str, int],
    cpus: int,
    said: str,
    toy_app: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_simulation(toy_app, nodes, config, cpus) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_no_app_is_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_simulation(tmp_path, 2) == 2
    assert capsys.readouterr().err == f"error: no pyproject.toml in {tmp_path}\n"


def test_the_log_keeps_what_matters() -> None:
    log = LogFilter()
    raw = [
        "Successfully started run 42\n",
        "\x1b[92mINFO \x1b[0m:      Starting Flower Simulation\n",
        "\x1b[92mINFO \x1b[0m:      \n",
        "\x1b[92mINFO \x1b[0m:        1   0.93   0.01\n",
        "\x1b[93mWARNING \x1b[0m:   bounds relaxed\n",
        "plain print\n",
        "\x1b[91mERROR \x1b[0m:     Simulation raised an exception\n",
        "Traceback (most recent call last):\n",
        '  File "app.py", line 1, in main\n',
        "common.config.SettingsError: lr = -1 is not allowed\n",
    ]
    shown = [line for each in raw if (line := log.feed(each)) is not None]
    assert shown == [
        "  1   0.93   0.01",
        "WARNING: bounds relaxed",
        "plain print",
        "ERROR: Simulation raised an exception",
        "Traceback (most recent call last):",
        '  File "app.py", line 1, in main',
        "common.config.SettingsError: lr = -1 is not allowed",
    ]
    assert log.run_id == "42"
    assert log.exception == "common.config.SettingsError: lr = -1 is not allowed"
