"""The live line: what it says, where it is drawn, and that it garbles nothing."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from expertfleet.cli import main
from server_app.launcher.live import LiveLine
from tests.conftest import REPOSITORY

CONFIG = "num-experts=4 local-epochs=25 train-samples=200"
ROW = re.compile(r" {4}(\d) .*\d")
LIVE = re.compile(r"round (\d) of 3, replies (\d)/4")


def test_the_line_says_round_replies_and_how_long_the_rest_takes(
    tmp_path: Path,
) -> None:
    now = [100.0]
    line = LiveLine(tmp_path, 5, lambda: now[0])

    def seen(number: int, answers: int, asked: int) -> str:
        facts = {"round": number, "answers": answers, "asked": asked}
        (tmp_path / "progress.json").write_text(json.dumps(facts))
        return line.text()

    assert line.text() == "starting"
    assert seen(1, 0, 20) == "round 1 of 5, replies 0/20"
    now[0] += 30
    assert seen(1, 5, 20) == "round 1 of 5, replies 5/20"  # too little to go by
    now[0] += 30
    # Half a round took 60 s: four and a half take 540.
    assert seen(1, 10, 20) == "round 1 of 5, replies 10/20, 0:09:00 left"
    (tmp_path / "progress.json").write_text('{"round": 1, "ans')
    assert line.text() == "round 1 of 5, replies 10/20, 0:09:00 left"
    now[0] += 60
    assert seen(2, 0, 0) == "round 2 of 5, replies 0/0, 0:08:00 left"
    now[0] += 3600 * 4 - 120
    assert seen(5, 20, 20) == "round 5 of 5, replies 20/20, 0:00:00 left"


def test_a_run_that_goes_on_counts_from_where_it_goes_on(tmp_path: Path) -> None:
    now = [0.0]
    line = LiveLine(tmp_path, 12, lambda: now[0])
    facts = {"round": 11, "answers": 0, "asked": 4}
    (tmp_path / "progress.json").write_text(json.dumps(facts))
    assert line.text() == "round 11 of 12, replies 0/4"
    now[0] = 10.0
    facts["round"] = 12
    (tmp_path / "progress.json").write_text(json.dumps(facts))
    assert line.text() == "round 12 of 12, replies 0/4, 0:00:10 left"


def started(
    folder: Path, stdout: int, stderr: int, rounds: str = "num-rounds=3"
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "expertfleet", "simulate", "--clients=4"]
    command += ["--run-config", f'{CONFIG} {rounds} output-dir="{folder}"']
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60", "LINES": "40"}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        env.pop(name, None)
    if stderr == subprocess.PIPE:
        env["FORCE_COLOR"] = "1"
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )


def written(controller: int) -> str:
    """Return all that is written to a terminal."""
    found = b""
    while True:
        try:
            block = os.read(controller, 65536)
        except OSError:  # Linux: nobody has it open any more
            block = b""
        if not block:
            return found.decode()
        found += block


def shown(text: str) -> list[str]:
    """Return the lines of a terminal's output, without what was drawn over."""
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r\n", "\n"))
    return [line.rpartition("\r")[2].rstrip() for line in lines.split("\n")]


def test_on_a_terminal_the_line_is_drawn_and_the_table_is_whole(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    process = started(tmp_path, stdout=terminal, stderr=terminal)
    os.close(terminal)
    text = written(controller)
    os.close(controller)
    assert process.wait(timeout=600) == 0, text
    assert LIVE.search(text), text
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    [folder] = tmp_path.iterdir()
    lines = shown(text)
    assert [m[1] for line in lines if (m := ROW.fullmatch(line))] == ["1", "2", "3"]
    # Longer than the terminal is wide, and a line all the same: it can be copied.
    assert f"results: {folder}" in lines
    assert lines[0] == f"run:      {folder}"
    assert not (folder / "progress.json").exists()


def test_a_table_in_a_file_is_whole_while_the_line_is_drawn(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    table = (tmp_path / "table.txt").open("w+")
    process = started(tmp_path / "results", stdout=table.fileno(), stderr=terminal)
    os.close(terminal)
    text = written(controller)
    os.close(controller)
    assert process.wait(timeout=600) == 0, text
    assert LIVE.search(text)
    table.seek(0)
    header, *rows, results = table.read().splitlines()
    assert header.startswith("round") and results.startswith("results: ")
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert not any(ROW.fullmatch(line) for line in shown(text))


def test_elsewhere_there_is_none_even_where_colours_are_asked_for(
    tmp_path: Path,
) -> None:
    process = started(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = (each.decode() for each in process.communicate(timeout=600))
    assert process.returncode == 0, err
    assert "\x1b" not in out
    assert "replies" not in err and "\x1b[?25" not in err
    assert len([line for line in out.splitlines() if ROW.fullmatch(line)]) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_as_it_was_and_says_how_to_go_on(
    number: signal.Signals, tmp_path: Path
) -> None:
    controller, terminal = pty.openpty()
    process = started(tmp_path, terminal, terminal, "num-rounds=500")
    os.close(terminal)
    text = ""
    try:
        while "    2  0." not in text:
            text += os.read(controller, 65536).decode()
        process.send_signal(number)
        text += written(controller)
        assert process.wait(timeout=600) == 128 + number
    finally:
        process.kill()
        os.close(controller)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    [folder] = tmp_path.iterdir()
    *_, run, _, again = (line for line in shown(text) if line)
    assert run == f"run:      {folder}"
    *_, option, pairs = shlex.split(again)
    assert (option, pairs) == ("--run-config", f'resume-from="{folder}"')
    code = main(["simulate", option, f"{pairs} num-rounds=4"])
    rounds = (folder / "metrics.jsonl").read_text().splitlines()
    assert code == 0 and len(rounds) >= 2
