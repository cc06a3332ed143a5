"""The command line: the same ends for every command, on every terminal."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common import commands

ROOT = Path(__file__).resolve().parents[2]


def run(monkeypatch: pytest.MonkeyPatch, main: Any) -> int:
    module = SimpleNamespace(command=lambda: main())
    monkeypatch.setattr(commands, "import_module", lambda name: module)
    return commands.run_command("prog", "what", {"do": ("somewhere", "text")}, ["do"])


def test_a_terminal_that_lacks_a_character_gets_an_escape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))

    def main() -> int:
        print("├ü")
        return 0

    assert run(monkeypatch, main) == 0
    assert raw.getvalue() == b"\\u251c\xfc\n"


def test_a_closed_standard_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run(monkeypatch, lambda: print("unseen") or 3) == 3


def test_ctrl_c_ends_with_130_also_while_a_command_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: Any) -> int:
        raise KeyboardInterrupt

    assert run(monkeypatch, interrupt) == 130
    monkeypatch.setattr(commands, "import_module", interrupt)
    assert commands.run_command("prog", "", {"do": ("somewhere", "")}, ["do"]) == 130


def test_a_proxy_that_cannot_be_used_is_told_and_taken_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", {"ALL_PROXY": "ftp://127.0.0.1:1"})
    assert run(monkeypatch, lambda: "ALL_PROXY" in os.environ) == 0
    assert capsys.readouterr().err.startswith("warning: ALL_PROXY is not used: ")


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    command = f"{sys.executable} -m server_app strategies | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # 0 where the whole table was in the pipe before its reader went.
    assert done.returncode in (0, 141)
    assert done.stderr == ""
