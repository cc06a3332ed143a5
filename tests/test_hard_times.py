"""The plugin of ``make test-hard`` finds what it is for."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

TESTS = """
import os, signal, time
import pytest

SEEN = []

def test_leaves_something():
    SEEN.append(1)

def test_leans_on_it():
    assert SEEN

def test_is_quick():
    assert time.monotonic() - time.monotonic() > -1

def test_has_a_limit_for_hangs_only():
    deadline = time.monotonic() + 60
    assert time.monotonic() < deadline

def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.skip(reason="no")
def test_skips():
    raise AssertionError
"""


def test_what_leans_on_others_or_on_a_quick_machine_fails(tmp_path: Path) -> None:
    (tmp_path / "test_these.py").write_text(TESTS)
    command = ["-m", "pytest", "-q", "-ra", "-p", "tests.hard_times", "--rootdir", "."]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    told = {
        line.split("::")[1].split(" ")[0]
        for line in done.stdout.splitlines()
        if line.startswith("FAILED ")
    }
    assert told == {"test_leans_on_it", "test_is_quick", "test_dies"}, done.stdout
    assert "3 failed, 2 passed, 1 skipped" in done.stdout
