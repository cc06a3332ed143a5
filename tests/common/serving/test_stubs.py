"""The generated stubs are those of the .proto beside them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PROTO = "common/serving/inference.proto"


def test_the_committed_stubs_are_generated_from_the_proto(tmp_path: Path) -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I.", PROTO),
            *(f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")),
        ],
        cwd=REPOSITORY,
        check=True,
    )
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*_pb2*"))
    assert len(made) == 3
    for path in made:
        committed = (REPOSITORY / path).read_text()
        assert committed == (tmp_path / path).read_text(), f"run `make stubs`: {path}"
