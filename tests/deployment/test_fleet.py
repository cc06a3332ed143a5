"""A fleet that nothing happens to: TLS, registered keys, orders and replies."""

import json
from pathlib import Path

import pytest

from tests.deployment.fleet import Fleet, Run
from tests.deployment.test_survival import (
    CONFIG,
    assert_same_as_in_one_process,
    gates,
    repliers,
)

pytestmark = [pytest.mark.deployment, pytest.mark.smoke, pytest.mark.timeout(1200)]


def test_a_fleet_trains_the_bits_of_one_process_and_keeps_its_gates(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**CONFIG, "num-rounds": 2, "min-replies": 3}
    run = fleet.submit(config)
    # By the operator's own command, to the run's end.
    capsys.readouterr()
    assert fleet.provision("log", run.number) == 0, fleet.log(run)
    said = capsys.readouterr()
    assert f"results: {run.folder}" in said.out + said.err
    assert fleet.status(run) == "finished:completed"
    for record in run.records():
        assert repliers(record) == ["client-0", "client-1", "client-2"]
        assert record["rejected"] == {}
    assert_same_as_in_one_process(run, config, tmp_path)
    for device in range(3):
        assert "gate-2.npy" in gates(fleet, run, device)


def test_a_run_is_left_alone_by_ctrl_c_and_ended_by_stop(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'output-dir="{tmp_path}/out" num-rounds=50 num-experts=4 min-replies=3'
    follower = fleet.operator("run", "--run-config", text)
    follower.start()
    output = tmp_path / "out"
    fleet.until("the first round", lambda: [*output.glob("*/metrics.jsonl")])
    [folder] = output.iterdir()
    number = json.loads((folder / "run.json").read_text())["flower_run"]
    assert f"run {number}; Ctrl-C leaves it going" in follower.log()
    follower.interrupt()
    assert f"run {number} goes on" in follower.log()
    run = Run(number, output)
    assert fleet.status(run) == "running"
    assert fleet.provision("status", str(folder), "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["run"]["flower_state"] == "running"

    assert fleet.provision("stop", number) == 0
    assert fleet.finish(run) == "finished:stopped"
    assert fleet.provision("stop", number) == 2
    assert "already finished" in capsys.readouterr().err
    assert fleet.provision("runs") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row for row in rows if row.startswith(number) and "stopped" in row]
