"""The README's example, exactly as printed, from an installed third-party package."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Example:
    module: str
    pyproject: str
    commands: list[list[str]]


@pytest.fixture(scope="module")
def example() -> Example:
    readme = (REPOSITORY / "README.md").read_text()
    found = re.search(
        r"<!-- plugin-example -->(.*)<!-- /plugin-example -->", readme, re.S
    )
    assert found, "README.md has no plugin example between its markers"
    blocks = dict(
        re.findall(r"^```(python|toml|sh)\n(.*?)^```$", found[1], re.S | re.M)
    )
    commands = [shlex.split(line) for line in blocks["sh"].splitlines()]
    return Example(blocks["python"], blocks["toml"], commands)


@pytest.fixture(scope="module")
def installed(example: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a directory of its own, without a package index."""
    source = tmp_path_factory.mktemp("least-loaded")
    package = source / "src" / "least_loaded"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(example.module)
    (source / "pyproject.toml").write_text(example.pyproject)
    site = tmp_path_factory.mktemp("site")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv, "uv is not installed: run `make install`"
    # uv carries the build backend uv_build inside itself: nothing is downloaded.
    install = [uv, "pip", "install", "--offline", "--no-deps", "--quiet"]
    subprocess.run(
        [*install, "--python", sys.executable, "--target", str(site), str(source)],
        check=True,
    )
    return site


def run(command: list[str], installed: Path) -> str:
    path = os.pathsep.join(
        filter(None, [str(installed), os.environ.get("PYTHONPATH", "")])
    )
    done = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_about_30_lines(example: Example) -> None:
    code = [line for line in example.module.splitlines() if line.strip()]
    assert len(code) <= 40


@pytest.mark.parametrize("number", [0, 1])
def test_the_printed_commands_run_it(
    example: Example, installed: Path, tmp_path: Path, number: int
) -> None:
    python, *command = example.commands[number]
    assert python == "python"
    run([*command, "--run-config", f'output-dir="{tmp_path}"'], installed)
    [folder] = tmp_path.iterdir()
    rounds = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(rounds) == 3
    # 20 clients, 2 experts each, 8 experts: its policy keeps the loads equal.
    assert [record["load"] for record in rounds] == [[5] * 8] * 3
    assert rounds[-1]["cv_cumulative"] == 0
    assert all(record["rejected"] == {} for record in rounds)


def test_it_is_listed_with_its_package(installed: Path) -> None:
    table = run(["-m", "server_app", "strategies"], installed)
    [line] = [line for line in table.splitlines() if line.startswith("least-loaded")]
    assert "extractor, assigned experts" in line
    assert "from least-loaded" in line


def test_its_options_are_checked(example: Example, installed: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "server_app", "simulate", "--run-config"),
            'strategy="least-loaded" strategy-options="limt=0.1"',
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "limt" in done.stdout and "did you mean 'limit'?" in done.stdout
