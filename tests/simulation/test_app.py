"""The app under a real ``flwr run``: the bits of one process, and clear ends."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from server_app.__main__ import main
from server_app.commands.simulate import simulate
from server_app.launcher.config import RunConfig
from server_app.launcher.processes import Sandbox
from server_app.launcher.run import _run, run_simulation
from server_app.launcher.superlink import LaunchError, flower_environment
from server_app.run_error import RunError

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 5

CONFIG: RunConfig = {
    "num-rounds": 2,
    "num-experts": 4,
    "local-epochs": 1,
    "upload-dtype": "int8",
    "download-dtype": "int8",
    "expert-cache": True,
    "drift": 0.3,
    "partition": "rotation:3+concept:2+dirichlet:1.0",
}


@pytest.mark.simulation
@pytest.mark.smoke
def test_flwr_run_gives_the_same_bits_as_one_process(tmp_path: Path) -> None:
    # What other strategies ship, whatever the processes, is in rounds/test_bytes.
    simulate({**CONFIG, "output-dir": str(tmp_path / "inline")}, CLIENTS)
    mine = {**CONFIG, "output-dir": str(tmp_path / "simulated")}
    assert run_simulation(ROOT, CLIENTS, mine) == 0
    [inline] = (tmp_path / "inline").iterdir()
    [simulated] = (tmp_path / "simulated").iterdir()
    expected = load_file(inline / "model.safetensors")
    # What virtual clients keep is in the run, also where Ray's workers are clients.
    assert _gates(simulated) == _gates(inline)
    for tensor, value in load_file(simulated / "model.safetensors").items():
        np.testing.assert_array_equal(value, expected[tensor])
    for one, other in zip(
        (inline / "metrics.jsonl").read_text().splitlines(),
        (simulated / "metrics.jsonl").read_text().splitlines(),
        strict=True,
    ):
        first, second = json.loads(one), json.loads(other)
        for key in (
            *("server_global", "client_global", "client_local", "load"),
            *("served", "worst_group"),
        ):
            assert first[key] == second[key]


def _gates(run: Path) -> dict[str, bytes]:
    """Return the private gates after the last round, by client."""
    found = sorted((run / "clients" / run.name).glob("*/gate-2.npy"))
    assert len(found) == CLIENTS
    return {path.parent.name: path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("flwr-run", "expert-capacity=99", "expert-capacity = '99'"),
        ("flwr-run", 'partition="dirchlet:0.3"', "did you mean 'dirichlet:0.3'?"),
        ("flwr-run", 'num-rounds="two"', "num-rounds = 'two'"),
        ("simulate", 'strategy="flexmoe"', "did you mean 'flex-moe'?"),
        ("simulate", 'dataset="cifra10"', "did you mean 'cifar10'?"),
        ("simulate", "fitnes=1", "did you mean 'fitness'?"),
    ],
)
def test_a_wrong_setting_ends_in_one_line_before_anything_starts(
    name: str, config: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--run-config", config]) == 2
    out, err = capsys.readouterr()
    [line] = (out + err).splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_run_that_fails_on_the_way_raises(tmp_path: Path) -> None:
    # Nothing can tell beforehand that this diverges: every client answers an error.
    # Flower takes a ServerApp that raises, and no other, for failed (test_launcher).
    config = {**CONFIG, "short-round": "skip", "lr": 10000.0}
    with pytest.raises(RunError, match="training diverged"):
        simulate({**config, "output-dir": str(tmp_path)}, CLIENTS)
    assert not list(tmp_path.glob("*/model.safetensors"))


@pytest.mark.simulation
def test_a_federation_with_too_few_nodes_is_not_waited_for(tmp_path: Path) -> None:
    # What the command would refuse, a plain `flwr run` says to Flower alone.
    config: RunConfig = {"min-replies": 3, "output-dir": str(tmp_path / "results")}
    federation: RunConfig = {
        "num-supernodes": 0,
        "client-resources-num-cpus": 1,
        "client-resources-num-gpus": 0.0,
    }
    said = "min-replies = 3 is not allowed with clients = 0: expected 0"
    with (
        Sandbox(flower_environment()) as sandbox,
        pytest.raises(LaunchError, match=said),
    ):
        _run(sandbox, ROOT, config, federation, quiet=True)
    assert not (tmp_path / "results").exists()
