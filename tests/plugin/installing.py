"""A third-party package in this process or another, without a package index."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from common.registry import installed_parts
from server_app.__main__ import main

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


@contextmanager
def importable(*path: Path) -> Iterator[None]:
    """Do as a process started in the repository with directories on its PYTHONPATH.

    Starting one takes longer than what is tested. Children have the PYTHONPATH, too;
    what was imported from the directories is forgotten afterwards.
    """
    before = set(sys.modules)
    places = os.pathsep.join(map(str, path))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setenv("PYTHONPATH", places, prepend=os.pathsep)
        patch.setenv("COLUMNS", "200")
        for directory in reversed(path):
            patch.syspath_prepend(directory)
        installed_parts.cache_clear()
        try:
            yield
        finally:
            installed_parts.cache_clear()
            for name in set(sys.modules) - before:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if any(Path(file).is_relative_to(directory) for directory in path):
                    del sys.modules[name]


@dataclass(frozen=True)
class Done:
    """How a command has ended, and what it printed."""

    code: int
    out: str
    err: str


def run(command: list[str], *path: Path) -> Done:
    """Run a printed ``python -m server_app ...``, with directories to import from."""
    python, flag, program, *arguments = command
    assert (python, flag, program) == ("python", "-m", "server_app")
    out, err = StringIO(), StringIO()
    with importable(*path), redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    return Done(code, out.getvalue(), err.getvalue())
