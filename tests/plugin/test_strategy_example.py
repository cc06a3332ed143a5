"""The example of docs/your-strategy.md, as printed, from an installed package."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.plugin.installing import REPOSITORY, install, run

PROGRAM = ["python", "-m", "server_app"]


@dataclass(frozen=True)
class Example:
    module: str
    pyproject: str
    commands: list[list[str]]


@pytest.fixture(scope="module")
def example() -> Example:
    page = (REPOSITORY / "docs/your-strategy.md").read_text()
    found = re.search(
        r"<!-- plugin-example -->(.*)<!-- /plugin-example -->", page, re.S
    )
    assert found, "the page has no plugin example between its markers"
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
    return install(source, site)


def output_of(command: list[str], installed: Path) -> str:
    done = run(command, installed)
    assert done.code == 0, done.out + done.err
    return done.out


def test_it_is_about_30_lines(example: Example) -> None:
    code = [line for line in example.module.splitlines() if line.strip()]
    assert len(code) <= 40


@pytest.mark.parametrize("number", [0, 1])
def test_the_printed_commands_run_it(
    example: Example, installed: Path, tmp_path: Path, number: int
) -> None:
    command = [*example.commands[number], "--run-config", f'output-dir="{tmp_path}"']
    output_of(command, installed)
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
    table = output_of([*PROGRAM, "strategies"], installed)
    [line] = [line for line in table.splitlines() if line.startswith("least-loaded")]
    assert "from least-loaded" in line


def test_its_options_are_checked(installed: Path) -> None:
    config = 'strategy="least-loaded" strategy-options="limt=0.1"'
    done = run([*PROGRAM, "simulate", "--run-config", config], installed)
    assert done.code == 2
    assert "limt" in done.err and "did you mean 'limit'?" in done.err
