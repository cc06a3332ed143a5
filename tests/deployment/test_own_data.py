"""A fleet whose devices have folders of their own, and a server without data."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from common.data import load_dataset
from server_app.commands.simulate import simulate
from tests.deployment.fleet import Fleet

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1200)]

CLASSES = ("zero", "one", "two", "three")
HAS = {
    "client-0": ("zero", "one", "two"),
    "client-1": ("one", "two", "three"),
    "client-2": ("three", "zero"),
}
TASK = f"""
kind = "image"
classes = {list(CLASSES)}
size = [8, 8]
channels = 1
"""
CONFIG: dict[str, Any] = {
    "backbone": "mlp",
    "num-experts": 4,
    "local-epochs": 8,
    "lr": 0.05,
    "eval-every": 100,
    "num-rounds": 4,
    "min-replies": 3,
}


def write_sites(folder: Path) -> None:
    """Give every device its classes of the digits, each picture to one of them."""
    digits = load_dataset("digits", ".")
    holders: dict[str, list[str]] = {
        name: [device for device, has in HAS.items() if name in has] for name in CLASSES
    }
    for row, (x, y) in enumerate(zip(digits.x_train, digits.y_train, strict=True)):
        if y < len(CLASSES):
            name = CLASSES[y]
            owner = holders[name][row % len(holders[name])]
            place = folder / owner / name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(x * 15.9, np.uint8)).save(place / f"{row}.png")


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "sites"
    write_sites(folder)
    (folder.parent / "task.toml").write_text(TASK)
    return folder


@pytest.fixture(scope="module")
def fleet(sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    paths = [sites / name for name in HAS]
    with Fleet(tmp_path_factory.mktemp("fleet-of-own-data"), data=paths) as fleet:
        yield fleet


def test_a_device_is_refused_repaired_and_grows(fleet: Fleet, sites: Path) -> None:
    strange = sites / "client-1" / "thre"
    shutil.copytree(sites / "client-1" / "three", strange)
    later = sites.parent / "later"
    later.mkdir()
    pictures = sorted((sites / "client-2" / "zero").iterdir())
    for path in pictures[: len(pictures) // 2]:
        path.rename(later / path.name)

    config = {**CONFIG, "task": str(sites.parent / "task.toml"), "min-replies": 2}
    run = fleet.submit(config)
    fleet.until("the first round", lambda: run.records())
    refused = json.loads((run.folder / "run.json").read_text())["refused"]
    assert "class 'thre' is none of the task's" in refused["client-1"]
    assert "did you mean 'three'?" in refused["client-1"]
    shutil.rmtree(strange)
    for path in later.iterdir():
        path.rename(sites / "client-2" / "zero" / path.name)
    assert fleet.finish(run) == "finished:completed", fleet.log(run)

    first, last = run.records()[0], run.records()[-1]
    assert {c["client"] for c in first["clients"]} == {"client-0", "client-2"}
    trained = {c["client"]: c["num_examples"] for c in last["clients"] if c["replied"]}
    assert set(trained) == set(HAS)
    before = {c["client"]: c["num_examples"] for c in first["clients"]}
    assert trained["client-2"] > before["client-2"]
    assert trained["client-0"] == before["client-0"]
    assert all(not record["rejected"] for record in run.records())


def test_the_same_folders_in_one_process_give_the_same_model(
    fleet: Fleet, sites: Path, tmp_path: Path
) -> None:
    config = {**CONFIG, "task": str(sites.parent / "task.toml")}
    run = fleet.submit(config)
    assert fleet.finish(run) == "finished:completed", fleet.log(run)

    simulated = in_one_process(config, sites, tmp_path / "same")
    expected = load_file(simulated / "model.safetensors")
    found = load_file(run.folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    assert last_recall(run.folder) == last_recall(simulated)

    # One dense model of everything in one place, trained to the end.
    pooled = tmp_path / "pooled" / "all"
    for name in HAS:
        for path in sorted((sites / name).rglob("*.png")):
            place = pooled / path.parent.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / f"{name}-{path.name}")
    dense = {"num-experts": 1, "expert-capacity": 1, "num-rounds": 5}
    alone = {**config, **dense, "min-replies": 1}
    best = last_recall(in_one_process(alone, pooled.parent, tmp_path / "alone"))
    np.testing.assert_allclose(last_recall(run.folder), best, atol=0.05)


def in_one_process(config: dict[str, Any], sites: Path, output: Path) -> Path:
    """Simulate the devices of some folders; return the run's directory."""
    places = {
        "data-dir": str(sites),
        "partition": "folders",
        "output-dir": str(output),
        "state-dir": str(output.parent / f"{output.name}-state"),
    }
    simulate({**config, **places}, len([*sites.iterdir()]))
    [run] = output.iterdir()
    return run


def last_recall(run: Path) -> list[float]:
    """The share of every class that the last round's model finds in the fleet."""
    line = (run / "metrics.jsonl").read_text().splitlines()[-1]
    recall: list[float] = json.loads(line)["recall"]
    assert len(recall) == len(CLASSES)
    return recall
