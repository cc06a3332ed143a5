"""``simulate``: two plain streams, one line for what cannot be, true exit codes."""

import json
import logging
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server_app.__main__ import main
from server_app.commands import simulate as module
from server_app.commands.simulate import simulate
from server_app.contract import View
from server_app.launcher.config import RunConfigError
from server_app.run_error import RunError
from server_app.run_folder.folder import RunFolder
from server_app.run_folder.run_lock import RunLock
from server_app.strategies.flex_moe import FlexMoE


def called(*arguments: str) -> int:
    return main(["simulate", *arguments])


def test_the_table_goes_to_stdout_and_nothing_else_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = list(logging.getLogger("flwr").handlers)
    config = f'num-rounds=2 num-experts=4 local-epochs=1 output-dir="{tmp_path}"'
    assert called("--clients=3", "--run-config", config) == 0
    out, err = capsys.readouterr()
    [folder] = tmp_path.iterdir()
    lines = out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("round  server"))
    assert [line.split()[0] for line in lines[header + 1 : header + 3]] == ["1", "2"]
    assert lines[-1] == f"results: {folder}"
    assert "\x1b" not in out
    assert out.isascii()
    assert lines.index(lines[header]) == 0 and len(lines) == 4
    assert all(len(line) <= 80 for line in lines[:-1])
    assert err.splitlines()[:3] == told(folder)
    assert err.splitlines()[-3:] == told(folder, " num-rounds=4")
    assert "Strategy: flex-moe" in err
    assert logging.getLogger("flwr").handlers == handlers


def told(folder: Path, more: str = "") -> list[str]:
    pairs = f'resume-from="{folder}"{more}'
    command = f"expertfleet simulate --run-config '{pairs}'"
    if shutil.which("expertfleet") is None:
        command = command.replace("expertfleet", f"{sys.executable} -m expertfleet", 1)
    return [
        f"run:      {folder}",
        f"report:   file://{folder}/report.html",
        f"to go on: {command}",
    ]


def test_quiet_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = f'num-rounds=1 num-experts=4 local-epochs=1 output-dir="{tmp_path}"'
    assert main(["--quiet", "simulate", "--clients=3", "--run-config", config]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("devices", "config", "said"),
    [
        ("0", "", "clients = 0 is not allowed: an integer from 1 to"),
        ("-3", "", "clients = -3 is not"),
        ("ten", "", "clients = ten is not"),
        ("2.5", "", "clients = 2.5 is not"),
        ("", "", "clients = '' is not"),
        ("1000000000", "", "clients = 1000000000 is not"),
        ("4", "min-replies=5", "min-replies = 5 is not allowed with clients = 4: "),
        ("1000", "", "1438 samples are too few for 1000 clients"),
        ("12", "reserved-samples=1420", "18 samples are too few for 12 clients"),
        ("4", 'output-dir="/dev/null/x"', "output-dir = '/dev/null/x' cannot be"),
        ("4", 'state-dir="/dev/null"', "state-dir = '/dev/null' cannot be"),
        ("4", 'resume-from="nowhere"', "resume-from = 'nowhere': "),
    ],
)
def test_what_no_run_can_do_is_one_line_at_once(
    devices: str,
    config: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "simulate", lambda *_, **__: pytest.fail("it started"))
    assert called(f"--clients={devices}", "--run-config", config) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize("key", ["output-dir", "data-dir", "state-dir", "resume-from"])
@pytest.mark.parametrize("value", ["~nobody-here/x", r"a\u0000b", "{}/loop/x"])
def test_a_path_that_is_none_is_one_line(
    key: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    config = f'{key}="{value.format(tmp_path)}"'
    assert called("--clients=4", "--run-config", config) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {key} = ")
    assert " is not allowed: " in line


@pytest.mark.parametrize("key", ["output-dir", "state-dir"])
def test_a_name_that_is_too_long_is_one_line(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = f'{key}="{"x" * 300}"'
    assert called("--clients=4", "--run-config", config) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {key} = ")
    assert "cannot be written to: " in line


def test_a_run_of_another_machine_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num-rounds": 1, "output-dir": "/dev/null/results"}
    (tmp_path / "run.json").write_text(json.dumps({"run": "r", "settings": settings}))
    started = []
    monkeypatch.setattr(
        module, "simulate", lambda config, *_, **__: started.append(config)
    )
    config = f'resume-from="{tmp_path}/"'
    assert called("--clients=4", "--run-config", config) == 0
    assert started[0]["resume-from"] == str(tmp_path)


class Never(FlexMoE):
    """Says "never" by a number, not by ``forbidden``."""

    name = "never"

    def fitness_of(self, view: View) -> NDArray[np.float64]:
        fitness = super().fitness_of(view).copy()
        fitness[0, 3] = -1e10
        return fitness


def test_numbers_of_a_strategy_that_state_no_problem_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = f'strategy="{__name__}:Never" output-dir="{tmp_path}"'
    assert called("--clients=3", "--run-config", config) == 1
    *_, line, _, _, _ = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the run failed: round 1: strategy 'never': fitness")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_so_that_it_can_be_gone_on_with(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep = RunFolder.keep

    def keep_and_end(run: RunFolder, *given: Any) -> None:
        keep(run, *given)
        signal.raise_signal(number)

    monkeypatch.setattr(RunFolder, "keep", keep_and_end)
    before = signal.getsignal(number)
    small = "num-rounds=3 num-experts=4 local-epochs=1 train-samples=200"
    config = f'{small} output-dir="{tmp_path}"'
    assert called("--clients=3", "--run-config", config) == 128 + number
    [folder] = tmp_path.iterdir()
    assert capsys.readouterr().err.splitlines()[-5:] == [
        f'ERROR: stopped after round 1; to go on: resume-from="{folder}"',
        "interrupted: the run was stopped",
        *told(folder),
    ]
    assert signal.getsignal(number) == before
    RunLock(folder).release()


@pytest.mark.parametrize(
    ("raised", "code", "said", "traced"),
    [
        (RunError("no round was\nmerged"), 1, "no round was merged", False),
        (OSError(28, "No space left on device"), 1, "No space left", False),
        (RunError("x" * 10**6), 1, "xxx...", False),
        (KeyError("fitness"), 1, "KeyError: 'fitness'", True),
        (KeyboardInterrupt(), 130, "interrupted: the run was stopped", False),
    ],
)
def test_a_run_that_ends_badly_says_so_last(
    raised: BaseException,
    code: int,
    said: str,
    traced: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(module, "simulate", fail)
    assert called("--clients=4") == code
    err = capsys.readouterr().err
    assert said in err.splitlines()[-1]
    assert ("Traceback" in err) == traced
    assert traced or len(err.splitlines()) == 1
    assert len(err) < 10_000


@pytest.mark.parametrize("devices", [0, -1, 10**9])
def test_called_from_python_nothing_waits_for_clients_that_cannot_come(
    devices: int, tmp_path: Path
) -> None:
    with pytest.raises(RunConfigError, match=f"clients = {devices} is not"):
        simulate({"output-dir": str(tmp_path)}, devices)
