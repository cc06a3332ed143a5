"""``examples/own_parts``: its commands as printed, in one process and under Flower."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.installing import REPOSITORY, importable, install, run

EXAMPLE = REPOSITORY / "examples" / "own_parts"
ROUNDS = 3


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    """Return every printed command that calls Python, without its environment."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.S | re.M
    )
    words = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [each[each.index("python") :] for each in words if "python" in each]


@pytest.fixture(scope="module")
def data(printed: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    python, flag, program = printed[0]
    assert (python, flag) == ("python", "-c")
    exec(program.replace("'data/", f"'{directory}/"), {})
    return directory


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(EXAMPLE, tmp_path_factory.mktemp("site"))


def trained(command: list[str], data: Path, output: Path, *path: Path) -> list[Any]:
    """Run a printed command, elsewhere; return its rounds without the seconds."""
    places = f'data-dir="{data}" output-dir="{output}"'
    done = run([*command, "--clients", "4", "--run-config", places], *path)
    assert done.code == 0, done.out + done.err
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


@pytest.fixture(scope="module")
def by_path(
    printed: list[list[str]], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """The rounds of the parts by ``module:attr``, in this process."""
    output = tmp_path_factory.mktemp("by-path")
    return trained(printed[1], data, output, EXAMPLE / "src")


def pairs(command: list[str]) -> dict[str, str]:
    """The settings of a printed command, each as it is written."""
    return dict(pair.split("=") for pair in command[-1].split())


def test_it_is_about_120_lines() -> None:
    sources = [EXAMPLE / "pyproject.toml", *EXAMPLE.rglob("*.py")]
    lines = [line for source in sources for line in source.read_text().splitlines()]
    assert len(lines) <= 125


def test_what_devices_run_needs_nothing_of_the_server() -> None:
    code = "import sys, own_parts.device; print('server_app' in sys.modules)"
    with importable(EXAMPLE / "src"):
        said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said == "False\n"


def test_by_path_and_installed_are_the_same_run(
    printed: list[list[str]],
    data: Path,
    installed: Path,
    by_path: list[Any],
    tmp_path: Path,
) -> None:
    assert trained(printed[2], data, tmp_path, installed) == by_path


@pytest.mark.simulation
def test_under_flower_it_is_the_run_of_one_process(
    printed: list[list[str]],
    data: Path,
    installed: Path,
    by_path: list[Any],
    tmp_path: Path,
) -> None:
    # One run for either way: a part of the devices by its path, one of the server's.
    _, paths, command = printed
    mixed = pairs(command)
    for key in ("expert", "callbacks"):
        mixed[key] = pairs(paths)[key]
    config = " ".join(f"{key}={value}" for key, value in mixed.items())
    flower = [*command[:3], "flwr-run", "--run-config", config]
    assert trained(flower, data, tmp_path, installed) == by_path


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "cannot be loaded: ModuleNotFoundError: No module named 'own_parts'"),
        (2, "backbone = 'sines' is not allowed: choose from cnn, cnn1d, mlp, "),
    ],
)
def test_without_the_package_it_says_so(
    printed: list[list[str]], data: Path, number: int, said: str
) -> None:
    done = run([*printed[number], "--run-config", f'data-dir="{data}"'])
    assert done.code == 2
    assert said in done.err
