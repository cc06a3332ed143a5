"""What the launcher decides and says, without starting a run."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from server_app.launcher.log import PlainLog
from server_app.launcher.run import _failure, last_exception, run_simulation
from server_app.launcher.superlink import (
    SuperLink,
    first_object,
    flower_environment,
)
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("nodes", "config", "cpus", "said"),
    [
        (0, "", 1, "num-supernodes = 0"),
        (10**9, "", 1, "num-supernodes = 1000000000"),
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


TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "app.py", line 1, in main',
    "KeyError: 'fitness'",
    "",
    "During handling of the above exception, another exception occurred:",
    "",
    "Traceback (most recent call last):",
    '  File "app.py", line 2, in main',
]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["INFO : round 1", *TRACEBACK, "", "a.RunError: no round", "after"], "a.Run"),
        (TRACEBACK, "KeyError: 'fitness'"),  # cut off in the second one
        (["INFO : round 1", "a: b"], ""),
    ],
)
def test_the_reason_of_a_failure_is_the_last_exception(
    lines: list[str], said: str
) -> None:
    found = last_exception(lines)
    assert found.startswith(said) and bool(found) == bool(said)


class Ended(SuperLink):
    """A SuperLink whose run has failed."""

    def __init__(self) -> None:
        pass

    def outcome(self) -> tuple[str, str]:
        return "finished:failed", ""


def test_a_ray_that_is_late_is_told_from_a_run_that_fails() -> None:
    # Ray's words, and Flower's around them, shortened.
    lines = [
        "ERROR :     An exception occured!! The current node timed out during startup. "
        "This could happen because some of the raylet failed to startup",
        "Traceback (most recent call last):",
        '  File "run_simulation.py", line 346, in _main_loop',
        "RuntimeError: An error was encountered. Ending simulation.",
    ]
    late = _failure(Ended(), lines)
    assert late is not None and late.startswith("Ray did not start within the 30 s")
    assert _failure(Ended(), lines[1:]) == lines[-1]


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


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_a_log_that_cannot_be_written_ends_no_run(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[OSError] = [OSError(28, "No space left on device"), BrokenPipeError()]

    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise raised.pop(0)

    monkeypatch.setattr(
        "sys.stderr" if level > logging.INFO else "sys.stdout", Broken()
    )
    record = logging.makeLogRecord({"msg": "round 1", "levelno": level})
    PlainLog().emit(record)
    with pytest.raises(BrokenPipeError):  # `head` has seen enough
        PlainLog().emit(record)
