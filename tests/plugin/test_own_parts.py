"""``examples/own_parts``: its commands as printed, in one process and under Flower."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.installing import REPOSITORY, install, run

EXAMPLE = REPOSITORY / "examples" / "own_parts"
ROUNDS = 3


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    """Return the arguments of Python in every printed command that calls it."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.S | re.M
    )
    lines = [line for block in blocks for line in block.splitlines()]
    return [
        shlex.split(line.split("python ", 1)[1]) for line in lines if "python -" in line
    ]


@pytest.fixture(scope="module")
def data(printed: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    flag, program = printed[0]
    assert run([flag, program.replace("'data/", f"'{directory}/")]).returncode == 0
    return directory


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(EXAMPLE, tmp_path_factory.mktemp("site"))


def trained(command: list[str], data: Path, output: Path, *path: Path) -> list[Any]:
    """Run a printed command, elsewhere; return its rounds without the seconds."""
    places = f'data-dir="{data}" output-dir="{output}"'
    done = run([*command, "--num-supernodes", "4", "--run-config", places], *path)
    assert done.returncode == 0, done.stdout + done.stderr
    [folder] = output.iterdir()
    rounds = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(rounds) == ROUNDS
    for record in rounds:
        assert record["rejected"] == {}
        # The client metric: a mean of largest probabilities of ten classes.
        assert all(0.1 <= c["metrics"]["confidence"] <= 1 for c in record["clients"])
    with (folder / "loads.csv").open() as table:  # the callback's
        loads = [[int(cell) for cell in row] for row in csv.reader(table)]
    assert loads == [[record["round"], *record["load"]] for record in rounds]
    facts = json.loads((folder / "run.json").read_text())
    assert len(facts["code_hash"]) == 32
    assert len(facts["task"]["classes"]) == 10  # the reader's
    return [
        [record["load"], record["samples"], record["server_global"]]
        for record in rounds
    ]


def test_it_is_about_120_lines() -> None:
    sources = [EXAMPLE / "pyproject.toml", *EXAMPLE.rglob("*.py")]
    lines = [line for source in sources for line in source.read_text().splitlines()]
    assert len(lines) <= 125


def test_what_devices_run_needs_nothing_of_the_server() -> None:
    code = "import sys, own_parts.device; print('server_app' in sys.modules)"
    assert run(["-c", code], EXAMPLE / "src").stdout == "False\n"


@pytest.mark.slow
def test_by_path_and_installed_are_the_same_run(
    printed: list[list[str]], data: Path, installed: Path, tmp_path: Path
) -> None:
    _, by_path, by_name = printed
    first = trained(by_path, data, tmp_path / "path", EXAMPLE / "src")
    assert trained(by_name, data, tmp_path / "name", installed) == first


@pytest.mark.simulation
@pytest.mark.parametrize("how", ["path", "name"])
def test_under_flower_it_is_the_run_of_one_process(
    printed: list[list[str]], data: Path, installed: Path, tmp_path: Path, how: str
) -> None:
    command = printed[1 if how == "path" else 2]
    where = EXAMPLE / "src" if how == "path" else installed
    alone = trained(command, data, tmp_path / "alone", where)
    flower = ["flwr-run" if word == "simulate" else word for word in command]
    assert trained(flower, data, tmp_path / "flower", where) == alone


def test_without_the_package_it_says_so(printed: list[list[str]], data: Path) -> None:
    places = f'data-dir="{data}"'
    for command, said in (
        (
            printed[1],
            "cannot be loaded: ModuleNotFoundError: No module named 'own_parts'",
        ),
        (
            printed[2],
            "backbone = 'sines' is not allowed: choose from cnn, cnn1d, mlp, ",
        ),
    ):
        done = run([*command, "--run-config", places])
        assert done.returncode == 2
        assert said in done.stderr
