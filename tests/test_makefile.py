"""What ``make simulate`` installs, asked of a stand-in for uv that writes it down."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

UV = """#!/bin/sh
echo "$@" >> calls
case "$*" in *--torch-backend*) exit $BACKEND_CODE ;; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    for name, text in (
        ("uv", UV),
        ("python", '#!/bin/sh\necho "python $*" >> calls\n'),
    ):
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    return tmp_path


def simulate(
    checkout: Path, *words: str, backend_code: int = 0
) -> tuple[str, list[str]]:
    """Run ``make simulate``; return what it says and what it calls."""
    done = subprocess.run(
        ["make", "simulate", *words],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "BACKEND_CODE": str(backend_code)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = checkout / "calls"
    found = calls.read_text().splitlines()
    calls.unlink()
    return done.stdout, found


def pin(name: str) -> str:
    found = re.search(rf"^{name}==\S+", (ROOT / "constraints.txt").read_text(), re.M)
    assert found
    return found[0]


def test_torch_is_for_the_cpu_and_from_one_place(checkout: Path) -> None:
    said, calls = simulate(checkout)
    assert re.search(r"torch for the CPU: [\d.]+ GB on the disk", said)
    torch, rest, run = calls
    assert "--torch-backend cpu" in torch
    assert torch.endswith(f"{pin('torch')} {pin('torchvision')}")
    assert rest.endswith("-c constraints.txt -e .[simulation]")
    assert run.startswith("python -m server_app flwr-run")
    assert simulate(checkout)[1] == [run]  # installed once


def test_where_it_cannot_be_had_the_other_is_taken_and_named(checkout: Path) -> None:
    said, calls = simulate(checkout, backend_code=1)
    assert "cannot be had from here" in said
    assert calls[1].endswith("-e .[simulation]")


def test_cuda_is_asked_for(checkout: Path) -> None:
    said, calls = simulate(checkout, "TORCH=cuda")
    assert "CUDA" in said
    assert len(calls) == 2 and "--torch-backend" not in calls[0]


def test_what_a_developer_has_is_enough(checkout: Path) -> None:
    (checkout / ".venv" / ".installed").touch()
    assert len(simulate(checkout)[1]) == 1
