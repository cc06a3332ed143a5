"""What of `common` can be used without a library that the rest of it needs."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("module", "without"),
    [("common.moe", "flwr"), ("common.wire", "torch"), ("common.settings", "torch")],
)
def test_a_room_is_used_without_a_library(module: str, without: str) -> None:
    code = f"import sys; sys.modules['{without}'] = None; import {module}"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
