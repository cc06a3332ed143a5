"""Folders of clients: the model of a fleet whose devices have these very folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from client_app.app import app as client_app
from common.inline_grid import InlineGrid
from server_app.commands.simulate import simulate
from server_app.launcher.config import RunConfig, app_defaults
from server_app.launcher.run import run_simulation
from tests.whole_runs import serve

ROOT = Path(__file__).resolve().parents[2]

Arrays = dict[str, NDArray[Any]]

TASK = """
kind = "table"
classes = ["low", "middle", "high"]
columns = ["p", "q", {name = "mode", values = ["on", "off"]}]
"""
SITES = {"Süd": "low middle", "cam-north": "middle high", "zoo": "high low"}


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """Return the folder of three clients, each with two of three classes."""
    (tmp_path / "task.toml").write_text(TASK)
    rng = np.random.default_rng(0)
    for name, classes in SITES.items():
        folder = tmp_path / "sites" / name
        folder.mkdir(parents=True)
        lines = ["p,q,mode,label"]
        for _ in range(40 + 10 * len(name)):
            label = str(rng.choice(classes.split()))
            p = rng.normal(["low", "middle", "high"].index(label), 0.2)
            lines.append(
                f"{p:.3f},{rng.normal(50, 9):.1f},{'on' if p > 1 else 'off'},{label}"
            )
        (folder / "rows.csv").write_text("\n".join(lines))
    return tmp_path / "sites"


def config_of(sites: Path, out: str) -> RunConfig:
    return {
        "task": str(sites.parent / "task.toml"),
        "backbone": "mlp",
        "num-rounds": 3,
        "num-experts": 3,
        "expert-capacity": "1:0.5,2:0.5",
        "clients-per-round": 2,
        "output-dir": str(sites.parent / out),
    }


def outcome(sites: Path, out: str) -> tuple[Arrays, list[list[str]], dict[str, Any]]:
    """Return the model of a run, who took part by round, and what run.json says."""
    [run] = (sites.parent / out).iterdir()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    names = [[c["client"] for c in json.loads(line)["clients"]] for line in lines]
    facts = json.loads((run / "run.json").read_text())
    return load_file(run / "model.safetensors"), names, facts


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


def in_folders(sites: Path, out: str) -> RunConfig:
    return {**config_of(sites, out), "partition": "folders", "data-dir": str(sites)}


def test_folders_give_the_model_of_devices_that_have_them(sites: Path) -> None:
    simulate({**app_defaults(ROOT), **in_folders(sites, "folders")}, 3)
    config = {**app_defaults(ROOT), **config_of(sites, "devices")}
    grid = InlineGrid(client_app, 3, config)
    # Devices come in another order, and none is told a number.
    for context, name in zip(
        grid.contexts.values(), ("zoo", "Süd", "cam-north"), strict=True
    ):
        context.node_config = {"name": name, "data-path": str(sites / name)}
    serve(config, grid)
    model, names, facts = outcome(sites, "folders")
    theirs, their_names, their_facts = outcome(sites, "devices")
    assert same(model, theirs)
    assert names == their_names
    assert list(facts["clients"]) == list(their_facts["clients"]) == sorted(SITES)
    assert facts["task"] == their_facts["task"]
    # Nothing was cut: all 70, 130 and 70 rows are used.
    assert [each["rows"] for each in facts["clients"].values()] == [70, 130, 70]


@pytest.mark.simulation
def test_flwr_run_gives_the_same_bits_from_folders(sites: Path) -> None:
    # A strategy that sends windows of one model, each client its own.
    how: RunConfig = {"strategy": "fedrolex", "upload-dtype": "float16"}
    simulate({**app_defaults(ROOT), **in_folders(sites, "inline"), **how}, 3)
    assert run_simulation(ROOT, None, {**in_folders(sites, "flower"), **how}) == 0
    model, names, facts = outcome(sites, "inline")
    theirs, their_names, their_facts = outcome(sites, "flower")
    assert same(model, theirs)
    assert names == their_names
    assert list(facts["clients"]) == list(their_facts["clients"]) == sorted(SITES)
