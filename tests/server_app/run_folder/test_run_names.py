"""A run's name goes with every order, whatever the data set is called."""

import re
from pathlib import Path

import pytest

from common.settings import Settings
from common.wire import TrainOrder
from server_app.run_folder.folder import RunFolder

NAMES = ["my data", "a$b", "x" * 200, "\u00fc\u4e2d", "a'b", "..", "~"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strategy", ["flex-moe", "my_package.module:Class" * 9])
def test_any_data_set_and_strategy_make_a_name_that_travels(
    tmp_path: Path, name: str, strategy: str
) -> None:
    settings = Settings.from_run_config(
        {"dataset": name, "strategy": strategy, "output-dir": str(tmp_path)}
    )
    run = RunFolder(settings).name
    order = TrainOrder(run=run, server_round=1, experts=[0], num_experts=1, top_k=1)
    assert order.run == run and len(run) <= 90
    assert [path.name for path in tmp_path.iterdir()] == [run]


def test_a_plain_name_is_in_it_as_it_is(tmp_path: Path) -> None:
    config = {"dataset": "my_Data.v2", "output-dir": str(tmp_path)}
    run = RunFolder(Settings.from_run_config({**config, "seed": 7})).name
    assert re.search("-flex-moe-my_Data[.]v2-s7-[0-9a-f]{6}$", run)


def test_a_run_of_a_task_is_called_by_its_file(tmp_path: Path) -> None:
    config = {"task": "/somewhere/pumps.toml", "output-dir": str(tmp_path)}
    run = RunFolder(Settings.from_run_config(config)).name
    assert "-flex-moe-pumps-s0-" in run
