"""Relative paths do not follow a SuperLink into somebody else's directory."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from flwr.superlink.grid import InMemoryGrid

from common.errors import SettingsError
from common.settings import Settings
from server_app.app import app
from server_app.run_folder.places import own_places

Config = dict[str, str | int | float | bool]


def placed(**config: str) -> Settings:
    flat = {key.replace("_", "-"): value for key, value in config.items()}
    return own_places(Settings.from_run_config(flat))


@pytest.mark.parametrize(
    "config",
    [
        {"dataset": "blobs"},
        {"dataset": "cifar10"},
        {"dataset": "blobs", "data_dir": "./data"},
        {"dataset": "blobs", "data_dir": "~/data"},
        {"task": "/task.toml", "partition": "folders", "data_dir": "sites"},
        {"task": "task.toml"},
        {"output_dir": "here"},
        {"output_dir": "../results"},
        {"output_dir": "~/results"},
        {"state_dir": "state"},
        {"resume_from": "results/x"},
        {"fleet_list": "fleet/fleet.json"},
        {"backbone": "pretrained", "pretrained": "./bert"},
        {"backbone": "pretrained", "pretrained": "a/b/c"},
    ],
)
def test_a_relative_path_is_refused_with_the_way_out(config: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        placed(**config)
    message = str(caught.value)
    key = [*config][-1].replace("_", "-").replace("dataset", "data-dir")
    assert message.startswith(f"{key} = ")
    assert str(Path.cwd()) in message
    assert f'{key}="/' in message
    assert "\n" not in message


def test_a_directory_that_looks_like_an_id_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed(backbone="pretrained", pretrained="google/bert")
    (tmp_path / "google" / "bert").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="pretrained = 'google/bert'"):
        placed(backbone="pretrained", pretrained="google/bert")


def test_out_of_the_box_results_go_to_the_users_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / "expertfleet" / "results")
    assert placed().run.output_dir == expected
    assert expected in caplog.text


def test_absolute_paths_stay() -> None:
    config = {"dataset": "blobs", "data_dir": "/d", "output_dir": "/o"}
    settings = Settings.from_run_config(
        {key.replace("_", "-"): value for key, value in config.items()}
    )
    assert own_places(settings) == settings
    # Where the run has a task, nobody looks for a data set.
    own = placed(task="/task.toml", data_dir="data", dataset="blobs", output_dir="/o")
    assert own.data.data_dir == "data"


def test_the_serverapp_asks_in_flowers_simulation_only(tmp_path: Path) -> None:
    config: Config = {"dataset": "blobs", "data-dir": "data"}
    context = Context(
        run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config
    )
    with pytest.raises(SettingsError, match="data-dir = 'data' is not allowed here"):
        app(grid=object.__new__(InMemoryGrid), context=context)
