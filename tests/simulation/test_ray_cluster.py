"""Simulations and studies on a Ray cluster of two machines that was there before."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.study.cells import Cell, read_lines
from benchmarks.study.one_cell import run_cell
from expertfleet.sweep.one_run import newest_run
from server_app.commands.simulate import simulate
from server_app.launcher import cluster
from server_app.launcher.cluster import (
    ClusterError,
    ClusterSize,
    Needs,
    check_cluster,
    code_archive,
)
from server_app.launcher.config import parse_run_config
from tests.simulation.every_baseline import timeless
from tests.simulation.ray_machines import (
    REPOSITORY,
    Machines,
    can_be_alone,
)

pytestmark = pytest.mark.simulation

CLIENTS = 3
CELL = "num-rounds=40 train-samples=200 local-epochs=1"
ENDLESS = "num-rounds=100000 train-samples=200 local-epochs=1"
RUN: dict[str, Any] = {"num-experts": 4, "local-epochs": 1, "num-rounds": 200}


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    machines = Machines()
    try:
        yield machines
    finally:
        machines.stop()


@pytest.fixture
def second(machines: Machines) -> Iterator["subprocess.Popen[bytes]"]:
    machine = machines.add()
    yield machine
    machines.kill(machine)


def started(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )


def comparison(folder: Path, machines: Machines, config: str) -> list[str]:
    where = ["--ray-address", machines.address, "--out", str(folder / "runs.jsonl")]
    what = ["--strategies", "random", "--seeds", "0,1,2", "--clients", str(CLIENTS)]
    return ["benchmarks.compare", *where, *what, "--run-config", config]


def rounds_of(out: Path, run: str = "*") -> list[dict[str, Any]]:
    found = [path.read_text().splitlines() for path in out.glob(f"{run}/metrics.jsonl")]
    return [json.loads(line) for line in (found[0] if found else [])]


def without_seconds(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "seconds"}


def test_a_lost_machine_costs_a_study_a_second_try_and_nothing_else(
    machines: Machines, second: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    study = started(tmp_path, *comparison(tmp_path, machines, CELL))
    log = tmp_path / "log"
    while not machines.titles(second, "_run_there"):
        assert study.poll() is None, log.read_text()
        time.sleep(0.1)
    machines.kill(second)

    assert study.wait(timeout=600) == 0, log.read_text()

    assert "2 machines, 2 runs at once" in log.read_text()
    [told] = [line for line in log.read_text().splitlines() if "run again" in line]
    assert told.startswith("digits ")
    assert "lost with its worker" in told
    found = {line["seed"]: line for line in read_lines(tmp_path / "runs.jsonl")}
    assert sorted(found) == [0, 1, 2]
    # One process on one machine: the same bits.
    config = json.loads(found[0]["key"])[1]
    del config["seed"], config["dataset"], config["partition"]
    for seed, line in found.items():
        cell = Cell(
            table="",
            dataset="digits",
            partition=line["partition"],
            label="random",
            seed=seed,
            clients=CLIENTS,
            config=config,
        )
        _, expected, error = run_cell((cell, "data"))
        assert expected is not None, error
        assert without_seconds(line) == without_seconds(expected)


def no_task_is_left(machines: Machines) -> None:
    """Wait for the tasks of the head to be over; it goes on."""
    deadline = time.monotonic() + 300
    while machines.titles(machines.head, "_run_there"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert machines.head.poll() is None
    assert machines.titles(machines.head, "gcs_server")


def sweep(out: Path, machines: Machines, config: str) -> list[str]:
    what = ["--set", "strategy=random", "--seeds", "0-2", "--clients", str(CLIENTS)]
    where = ["--out", str(out), "--ray-address", machines.address]
    return ["expertfleet", "sweep", *what, "--run-config", config, *where]


def test_a_sweep_on_two_machines_goes_on_where_a_lost_one_was(
    machines: Machines, second: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    log = tmp_path / "log"
    if can_be_alone():  # the second one has no such directory
        alone = started(tmp_path, *sweep(tmp_path / "out", machines, CELL))
        assert alone.wait(timeout=600) == 2, log.read_text()
        [line] = log.read_text().splitlines()
        assert f"out = '{tmp_path / 'out'}' is not shared with machine 127." in line
    with tempfile.TemporaryDirectory(dir="/var/tmp") as shared:
        out = Path(shared) / "out"
        study = started(tmp_path, *sweep(out, machines, CELL))
        while len(begun := [*out.glob("*/*/metrics.jsonl")]) < 2:
            assert study.poll() is None, log.read_text()
            time.sleep(0.1)
        machines.kill(second)

        assert study.wait(timeout=600) == 0, log.read_text()

        said = log.read_text().splitlines()
        assert f"Ray cluster at {machines.address}: 2 machines, 2 runs at once" in said
        [told] = [line for line in said if "run again" in line]
        assert told.startswith("strategy=random seed=")
        # What the lost one had begun was gone on with, to the same bits.
        for path in begun:
            assert newest_run(path.parents[1]) == path.parent
        settings = {**parse_run_config([CELL]), "strategy": "random"}
        for seed in range(3):
            alone_in = tmp_path / f"seed-{seed}"
            config = {**settings, "seed": seed, "output-dir": str(alone_in)}
            simulate(config, CLIENTS)
            found = rounds_of(out, f"*-s{seed}*/*")
            assert len(found) == 40
            assert timeless(found) == timeless(rounds_of(alone_in))


def test_a_sweep_that_is_ended_leaves_the_cluster_and_says_how_to_go_on(
    machines: Machines, tmp_path: Path
) -> None:
    study = started(tmp_path, *sweep(tmp_path / "out", machines, ENDLESS))
    while not machines.titles(machines.head, "_run_there"):
        assert study.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    study.send_signal(signal.SIGTERM)

    assert study.wait(timeout=120) == 143, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text().splitlines()
    assert said[1:] == ["interrupted: the same command goes on"]
    no_task_is_left(machines)


def test_ctrl_c_ends_the_cells_and_leaves_the_cluster(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = started(tmp_path, *comparison(tmp_path, machines, ENDLESS))
    while not machines.titles(machines.head, "_run_there"):
        assert study.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)

    # A simulation would wait for ever for the core that the cell has.
    monkeypatch.setattr(cluster, "FREE", 1.0)
    archive = code_archive(REPOSITORY, tmp_path)
    with pytest.raises(ClusterError, match="0 of its 1 cores are free"):
        check_cluster(machines.address, archive, Needs(all_free=True))
    study.send_signal(signal.SIGINT)

    assert study.wait(timeout=120) == 130, (tmp_path / "log").read_text()
    assert "stopped; the same command goes on" in (tmp_path / "log").read_text()
    no_task_is_left(machines)


def test_what_a_cluster_lacks_is_told_before_anything_starts(
    machines: Machines,
    second: "subprocess.Popen[bytes]",
    tmp_path: Path,
) -> None:
    archive = code_archive(REPOSITORY, tmp_path)
    data = tmp_path / "blobs.npz"
    data.write_bytes(b"data")

    def error_of(needs: Needs) -> str:
        with pytest.raises(ClusterError) as caught:
            check_cluster(machines.address, archive, needs)
        return str(caught.value)

    found = check_cluster(machines.address, archive, Needs(all_free=True))
    assert found == ClusterSize(machines=2, places=2, free_cpus=2.0)
    assert error_of(Needs(cpus=2)).endswith(
        "2 cores and 0 GPUs are wanted for one client, no machine has more than 1 and 0"
    )
    if not can_be_alone():
        return
    needs = Needs(same={"data-dir": [data]})
    assert error_of(needs).startswith(f"data-dir: {data} is missing on machine 127.0.0")
    kept = tmp_path / "state"
    needs = Needs(shared={"state-dir": kept})
    assert f"state-dir = '{kept}' is not shared with machine 127.0" in error_of(needs)
    assert list(kept.iterdir()) == []


def test_a_machine_that_has_just_lost_its_power_is_left_out(
    machines: Machines,
    second: "subprocess.Popen[bytes]",
    tmp_path: Path,
) -> None:
    archive = code_archive(REPOSITORY, tmp_path)
    machines.kill(second)  # Ray takes it for well for some more seconds

    found = check_cluster(machines.address, archive, Needs(all_free=True))

    assert found == ClusterSize(machines=1, places=1, free_cpus=1.0)


def test_a_simulation_on_two_machines_has_the_same_bits_and_ends_with_a_lost_one(
    machines: Machines, second: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    config = " ".join(f"{key}={value}" for key, value in RUN.items())
    options = ["--ray-address", machines.address, "--clients", str(CLIENTS)]
    options += ["--run-config", f'{config} output-dir="{out}"']
    run = started(tmp_path, "server_app", "flwr-run", *options)
    while len(rounds_of(out)) < 2:
        assert run.poll() is None, log.read_text()
        time.sleep(0.1)
    for machine in (machines.head, second):
        assert machines.titles(machine, "ClientAppActor")
    machines.kill(second)

    assert run.wait(timeout=300) == 1, log.read_text()

    assert "2 machines, 2 clients at once" in log.read_text()
    said = log.read_text().splitlines()
    [why] = [line for line in said if line.startswith("error: ")]
    assert "a worker process of the simulation died" in why
    completed = rounds_of(out)
    shorter = {**RUN, "num-rounds": len(completed)}
    simulate({**shorter, "output-dir": str(tmp_path / "inline")}, CLIENTS)
    assert timeless(completed) == timeless(rounds_of(tmp_path / "inline"))
