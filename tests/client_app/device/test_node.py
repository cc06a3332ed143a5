"""A device's own configuration: read whole, refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from client_app.device.node import NodeConfig
from common.errors import SettingsError
from common.settings.sections import DataSettings

SHARE: dict[str, Any] = {"partition-id": 1, "num-partitions": 3}


def test_what_is_not_said_has_a_default() -> None:
    node = NodeConfig.of(SHARE)
    assert (node.expert_cap, node.state_dir, node.data_path) == (None, None, None)
    assert (node.memory_bytes, node.flops_per_second) == (0, 0)


def test_everything_that_can_be_said() -> None:
    node = NodeConfig.of(
        {
            **SHARE,
            "name": "pi0",
            "expert-cap": 2,
            "memory-bytes": 10**9,
            "flops-per-second": 10**9,
            "uplink-bytes-per-second": 1.5e5,
            "data-dir": "/data",
            "data-path": "/data/cam.csv",
            "state-dir": "",
            "pretrained": "/bert",
            "another-apps-key": "left alone",
        }
    )
    assert (node.name, node.expert_cap, node.memory_bytes) == ("pi0", 2, 10**9)
    assert node.data_path == "/data/cam.csv"
    assert (node.data_dir, node.state_dir, node.pretrained) == ("/data", "", "/bert")
    assert NodeConfig.of({**SHARE, "name": 7}).name == "7"
    assert NodeConfig.of({"partition-id": "1", "num-partitions": 3}) == NodeConfig.of(
        SHARE
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("partition-id", v) for v in (-2, 1.5, "x", 3)),
        *(("num-partitions", v) for v in (-1, "")),
        ("data-path", ""),
        *(("name", v) for v in ("my pi", "a/b", "..", "x" * 101, "a\nb", "$HOME")),
        *(("expert-cap", v) for v in (-1, "many")),
        *(("memory-bytes", v) for v in (-5, "1 GB")),
        *(("flops-per-second", v) for v in (-1.0, float("nan"), float("inf"))),
        ("uplink-bytes-per-second", -1),
    ],
)
def test_what_cannot_be_is_told_in_one_line(key: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        NodeConfig.of({**SHARE, key: value})
    said = str(caught.value)
    assert said.startswith(f"node configuration: {key} = {value!r} is not allowed: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    "share",
    [
        {"partition-id": 1},
        {"num-partitions": 3},
        {"partition-id": -1, "num-partitions": 3},
        {"partition-id": 0, "num-partitions": 0},
    ],
)
def test_half_a_share_is_told(share: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="node configuration: partition-id = ") as e:
        NodeConfig.of(share)
    assert "a device with data of its own has neither" in str(e.value)


OWN: list[dict[str, Any]] = [{}, {"partition-id": -1, "num-partitions": 0}]
MINE = DataSettings(dataset="mine")


@pytest.mark.parametrize("config", OWN)
def test_no_share_means_data_of_its_own(config: dict[str, Any]) -> None:
    node = NodeConfig.of({**config, "data-path": "/data"})
    assert node == NodeConfig.of({"data-path": "/data"})
    assert node.own_data(MINE) == Path("/data")


def test_a_data_path_wins_over_a_share() -> None:
    node = NodeConfig.of({**SHARE, "data-path": "~/cam", "data-dir": "/else"})
    assert node.own_data(MINE) == Path.home() / "cam"


def test_a_share_of_the_runs_set_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").touch()
    data = DataSettings(dataset="mine", data_dir=str(tmp_path))
    assert NodeConfig.of(SHARE).own_data(data) is None
    with pytest.raises(SettingsError, match=r"has share 1 of 3 .* data-path"):
        NodeConfig.of(SHARE).own_data(data, by_task=True)
    assert NodeConfig.of({}).own_data(data) == tmp_path / "mine.npz"


def test_a_file_in_a_data_dir_of_its_own_is_its_own(tmp_path: Path) -> None:
    node = NodeConfig.of({**SHARE, "data-dir": str(tmp_path)})
    assert node.own_data(MINE) is None
    for name in ("mine.npz", "digits.jsonl", "emnist.npz"):
        (tmp_path / name).touch()
    assert node.own_data(MINE) == tmp_path / "mine.npz"
    assert node.own_data(DataSettings(dataset="digits")) == tmp_path / "digits.jsonl"
    # Downloaded: the same wherever it is.
    assert node.own_data(DataSettings(dataset="emnist")) is None
    alone = NodeConfig.of({"data-dir": str(tmp_path)})
    assert alone.own_data(DataSettings(dataset="emnist")) == tmp_path / "emnist.npz"
    assert alone.own_data(DataSettings(dataset="../mine")) is None


def test_with_a_task_the_folder_itself_will_do(tmp_path: Path) -> None:
    node = NodeConfig.of({"data-dir": str(tmp_path)})
    assert node.own_data(MINE) is None
    assert node.own_data(MINE, by_task=True) == tmp_path
    with pytest.raises(SettingsError, match="node configuration: data-path is missing"):
        NodeConfig.of({"name": "pi0"}).own_data(MINE, by_task=True)


def test_a_virtual_client_is_the_device_its_folder_is_of(tmp_path: Path) -> None:
    for name in ("south", "north", "west"):
        (tmp_path / name).mkdir()
    data = DataSettings(task="t.toml", partition="folders", data_dir=str(tmp_path))
    device = {"name": "south", "data-path": str(tmp_path / "south")}
    assert NodeConfig.of(SHARE).in_folder(data) == NodeConfig.of(device)
    assert NodeConfig.of({**SHARE, **device}).in_folder(data).partition_id == 1
    assert NodeConfig.of({"name": "pi0"}).in_folder(data).data_path is None
    iid = data.model_copy(update={"partition": "iid"})
    assert NodeConfig.of(SHARE).in_folder(iid) == NodeConfig.of(SHARE)
    (tmp_path / "east").mkdir()
    with pytest.raises(SettingsError, match=r"clients = 3 is not .* 4 folders"):
        NodeConfig.of(SHARE).in_folder(data)


def test_who_has_no_name_goes_by_its_share_or_its_node() -> None:
    one_of_one = {"partition-id": 0, "num-partitions": 1}
    for config, name in (
        (SHARE, "client-1"),
        ({**SHARE, "data-dir": "/data"}, "client-1"),
        (one_of_one, "client-0"),
        ({**one_of_one, "data-dir": "/data"}, "node-7"),
        ({**SHARE, "data-path": "/data"}, "node-7"),
        ({}, "node-7"),
        ({"name": "pi0"}, "pi0"),
    ):
        assert NodeConfig.of(config).client(7) == name
