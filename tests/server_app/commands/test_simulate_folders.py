"""``partition="folders"``: one client a folder, or one line before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from server_app.__main__ import main
from server_app.commands import simulate as module
from server_app.launcher import run as launcher

TASK = 'kind = "table"\nclasses = ["a", "b"]\ncolumns = ["p", "q"]\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with a task and three folders; the run begins there."""
    (tmp_path / "task.toml").write_text(TASK)
    for name in ("south", "north", "west", ".hidden"):
        (tmp_path / "sites" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return what would have been started: data-dir, number of devices."""
    calls: list[tuple[Any, ...]] = []

    def simulate(config: Any, number: int, **_: Any) -> None:
        calls.append((config["data-dir"], number))

    def run(_: Any, __: Any, config: Any, federation: Any, ___: Any) -> None:
        calls.append((config["data-dir"], federation["num-supernodes"]))

    monkeypatch.setattr(module, "simulate", simulate)
    monkeypatch.setattr(launcher, "_run", run)
    return calls


FOLDERS = 'partition="folders" backbone="mlp" data-dir="sites"'


@pytest.mark.parametrize("command", ["simulate", "flwr-run"])
@pytest.mark.parametrize("number", [[], ["--clients=3"]])
def test_there_are_as_many_devices_as_folders(
    command: str, number: list[str], place: Path, started: list[tuple[Any, ...]]
) -> None:
    config = f'{FOLDERS} task="task.toml"'
    assert main([command, *number, "--run-config", config]) == 0
    assert started == [(str(place / "sites"), 3)]


def test_without_folders_there_are_as_many_as_ever(
    place: Path, started: list[tuple[Any, ...]]
) -> None:
    assert main(["simulate"]) == 0
    assert [number for _, number in started] == [20]


@pytest.mark.parametrize("command", ["simulate", "flwr-run"])
@pytest.mark.parametrize(
    ("number", "config", "said"),
    [
        ("4", f'{FOLDERS} task="task.toml"', "clients = 4 is not allowed: data"),
        ("", FOLDERS, "partition = 'folders' is not allowed without task"),
        ("4", FOLDERS, "partition = 'folders' is not allowed without task"),
        (
            "3",
            'task="task.toml" backbone="mlp"',
            "partition = 'dirichlet:0.3' is not allowed with task in a simulation",
        ),
        (
            "",
            f'{FOLDERS} task="task.toml"'.replace("sites", "sites/south"),
            "data-dir = 'sites/south' has no folder",
        ),
        (
            "",
            f'{FOLDERS} task="task.toml"'.replace("sites", "gone"),
            "data-dir = 'gone' cannot be read: No such file",
        ),
        ("", 'partition="folder"', "partition = 'folder' is not allowed: unknown"),
    ],
)
def test_what_does_not_fit_is_one_line_at_once(
    command: str,
    number: str,
    config: str,
    said: str,
    place: Path,
    started: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [f"--clients={number}"] if number else []
    assert main([command, *given, "--run-config", config]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert not started
