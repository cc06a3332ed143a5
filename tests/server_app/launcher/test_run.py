"""What the launcher decides and says, without starting a run."""

import subprocess
import sys
from pathlib import Path

import pytest

from server_app.launcher.run import run_simulation
from server_app.launcher.superlink import first_object, flower_environment
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("nodes", "config", "cpus", "said"),
    [
        (0, "", 1, "clients = 0"),
        (10**9, "", 1, "clients = 1000000000"),
        (2, "", 4096, "client-cpus = 4096"),
        (2, {"num-roundz": 1}, 1, "did you mean 'num-rounds'"),
    ],
)
def test_a_setting_that_cannot_be_used_ends_in_one_line_and_2(
    nodes: int,
    config: str | dict[str, int],
    cpus: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_simulation(REPOSITORY, nodes, config, cpus) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_no_app_is_one_line_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_simulation(tmp_path, 2) == 2
    assert capsys.readouterr().err == f"error: no pyproject.toml in {tmp_path}\n"


@pytest.mark.parametrize(
    "text",
    [
        '{"runs": [{"status": "finished:completed"}]}',
        '\x1b[1m{\x1b[0m"runs": [{"status": \x1b[32m"finished:completed"\x1b[0m}]}',
        'Loading\n{"runs": [{"status": "finished:completed"}]}\nDeprecation{}\n',
    ],
)
def test_an_answer_of_flower_is_read_whatever_is_around_it(text: str) -> None:
    assert first_object(text)["runs"][0]["status"] == "finished:completed"


def test_programs_of_a_run_are_asked_for_plain_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("ALL_PROXY", "ftp://127.0.0.1:1")
    env = flower_environment()
    program = (
        "import httpx, rich; httpx.Client()\n"
        "rich.print_json(data={'runs': ['\u251c' * 300]})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, check=True
    )
    assert b"\x1b" not in done.stdout
    assert first_object(done.stdout.decode()) == {"runs": ["\u251c" * 300]}
