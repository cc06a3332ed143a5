"""A third-party package in an environment, without a package index."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def install(source: Path, site: Path) -> Path:
    """Install the package in ``source`` into the directory ``site``; return that."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv, "uv is not installed: run `make install`"
    # uv carries the build backend uv_build inside itself: nothing is downloaded.
    command = [uv, "pip", "install", "--offline", "--no-deps", "--quiet"]
    where = ["--python", sys.executable, "--target", str(site)]
    subprocess.run([*command, *where, str(source)], check=True)
    return site


def run(command: list[str], *path: Path) -> subprocess.CompletedProcess[str]:
    """Run Python from the repository's root, with directories on its PYTHONPATH."""
    before = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join([*map(str, path), *filter(None, [before])])
    return subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
    )
