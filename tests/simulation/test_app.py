"""The app under a real ``flwr run``: the bits of one process, and clear ends."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 5

# Strategies that ship different things (experts, a shared gate, own mixtures, windows),
# in different encodings.
CONFIGS = {
    "flex-moe": 'upload-dtype="int8" download-dtype="int8" expert-cache=true drift=0.3',
    "fed-moe": "reserved-samples=100",
    "fedjets": 'upload-dtype="float16" expert-cache=true',
    "fedrolex": "",
}


def command(name: str, config: str, clients: int = CLIENTS) -> list[str]:
    arguments = ["--num-supernodes", str(clients), "--run-config", config]
    return [sys.executable, "-m", "server_app", name, *arguments]


def finished(name: str, config: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(name, config),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.simulation
@pytest.mark.parametrize("strategy", CONFIGS)
def test_flwr_run_gives_the_same_bits_as_one_process(
    strategy: str, tmp_path: Path
) -> None:
    folders = {}
    for name in ("simulate", "flwr-run"):
        out = tmp_path / name
        config = (
            f'strategy="{strategy}" num-rounds=2 num-experts=4 local-epochs=1 '
            f'output-dir="{out}" {CONFIGS[strategy]}'
        )
        done = finished(name, config)
        assert done.returncode == 0, done.stdout + done.stderr
        [folders[name]] = out.iterdir()
    inline, simulated = folders["simulate"], folders["flwr-run"]
    expected = load_file(inline / "model.safetensors")
    for tensor, value in load_file(simulated / "model.safetensors").items():
        np.testing.assert_array_equal(value, expected[tensor])
    for mine, theirs in zip(
        (inline / "metrics.jsonl").read_text().splitlines(),
        (simulated / "metrics.jsonl").read_text().splitlines(),
        strict=True,
    ):
        for key in ("server_global", "client_global", "client_local", "load"):
            assert json.loads(mine)[key] == json.loads(theirs)[key]


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
    name: str, config: str, said: str
) -> None:
    done = finished(name, config)
    assert done.returncode == 2
    [line] = (done.stdout + done.stderr).strip().splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.simulation
def test_a_run_that_fails_on_the_way_fails_the_command(tmp_path: Path) -> None:
    # The server keeps nearly all of digits: found out when clients cut their shares.
    done = finished("flwr-run", f'output-dir="{tmp_path}" reserved-samples=1430')
    assert done.returncode == 1
    assert "error" in done.stdout + done.stderr
