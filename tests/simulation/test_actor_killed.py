"""A worker process of the simulation dies, as it does when memory runs out.

Flower keeps the dead Ray actor in its pool and hands it nearly every message, which it
fails at once: left alone, a run goes on with one or two clients and says "completed".
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from server_app.commands.simulate import simulate
from server_app.launcher.processes import members
from tests.simulation.processes import titles

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 4
# More rounds than can be done before the signal arrives.
CONFIG: dict[str, Any] = {"num-experts": 4, "local-epochs": 1, "num-rounds": 200}


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    places = f'output-dir="{tmp_path / "out"}" state-dir="{tmp_path / "state"}"'
    config = " ".join(f"{key}={value}" for key, value in CONFIG.items())
    command = [sys.executable, "-m", "server_app", "flwr-run", "--clients"]
    command += [str(CLIENTS), "--run-config", f"{config} {places}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True
        )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


def actors(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """The Ray workers that run clients; a busy one adds its method to its title."""
    home = next(
        found
        for child in psutil.Process(launcher.pid).children()
        if (found := child.environ().get("FLWR_HOME"))
    )
    return [
        process
        for process, title in titles(members(Path(home))).items()
        if "ray::ClientAppActor" in title
    ]


def rounds_of(out: Path) -> list[dict[str, Any]]:
    lines = [path.read_text().splitlines() for path in out.glob("*/metrics.jsonl")]
    return [json.loads(line) for line in (lines[0] if lines else [])]


@pytest.mark.simulation
def test_a_run_that_loses_a_worker_stops_says_so_and_can_be_resumed(
    launched: subprocess.Popen[str], tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    while len(rounds_of(out)) < 2:
        assert launched.poll() is None, log.read_text()
        time.sleep(0.1)
    workers = actors(launched)
    assert workers, log.read_text()
    workers[0].kill()

    assert launched.wait(timeout=300) == 1, log.read_text()

    [folder] = out.iterdir()
    completed = rounds_of(out)
    assert all(record["rejected"] == {} for record in completed)
    said = log.read_text().splitlines()
    [why] = [line for line in said if line.startswith("error: ")]
    assert "a worker process of the simulation died" in why
    hint = f'stopped after round {len(completed)}; to go on: resume-from="{folder}"'
    assert any(hint in line for line in said)

    # Gates of the clients included: they are below state-dir.
    config = {**CONFIG, "num-rounds": len(completed) + 2}
    state = {"state-dir": str(tmp_path / "state")}
    resumed = {"resume-from": str(folder), "output-dir": str(out), **state}
    simulate({**config, **resumed}, CLIENTS)
    simulate({**config, "output-dir": str(tmp_path / "inline")}, CLIENTS)

    [inline] = (tmp_path / "inline").iterdir()
    found = load_file(folder / "model.safetensors")
    for name, tensor in load_file(inline / "model.safetensors").items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    records = rounds_of(out)
    assert [record["round"] for record in records] == [
        *range(1, config["num-rounds"] + 1)
    ]
