"""What needs a data set of the server's is refused before a device is contacted."""

from pathlib import Path

import pytest

from common.errors import SettingsError
from server_app.run_config import check_run_config

TASK = """
kind = "table"
classes = ["no", "yes"]
columns = ["temp"]
"""


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("cent-moe", ""), ("fed-moe", ""), ("flex-moe-plus", "gate-epochs=1")],
)
def test_a_strategy_that_trains_on_the_servers_samples(
    strategy: str, options: str, tmp_path: Path
) -> None:
    task = tmp_path / "task.toml"
    task.write_text(TASK)
    config = {"task": str(task), "strategy": strategy, "strategy-options": options}
    told = f"is not allowed with strategy '{strategy}', which needs reserved samples"
    with pytest.raises(SettingsError, match=told) as caught:
        check_run_config(config)
    assert "\n" not in str(caught.value) and str(task) in str(caught.value)
    # Reserved samples do not help: there is nothing to cut them off.
    with pytest.raises(
        SettingsError, match="reserved-samples = 50 is not allowed with task"
    ):
        check_run_config({**config, "reserved-samples": 50})


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("reserved-samples", 5, "the server has no data set"),
        ("train-samples", 100, "a device trains on all samples of its own"),
        ("drift", 0.1, "no device hands samples of its own on"),
    ],
)
def test_a_setting_of_a_shared_set(
    key: str, value: float, why: str, tmp_path: Path
) -> None:
    task = tmp_path / "task.toml"
    task.write_text(TASK)
    check_run_config({"task": str(task)})
    with pytest.raises(SettingsError) as caught:
        check_run_config({"task": str(task), key: value})
    assert str(caught.value).startswith(f"{key} = {value} is not allowed with task: ")
    assert why in str(caught.value)
