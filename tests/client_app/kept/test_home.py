"""Where a client keeps what: as the device says, else the run, else in memory."""

import os
from pathlib import Path
from typing import Any

import pytest

from client_app.kept.home import Home
from client_app.kept.store import ContextStore
from client_app.session import Session
from tests.client_app.homes import context_of


def home_told(node: dict[str, Any], run: dict[str, Any]) -> Home:
    """Return the home of a virtual client that is told this."""
    share = {"partition-id": 0, "num-partitions": 2}
    return Session(context_of({**share, **node}, run)).home


@pytest.mark.parametrize(
    ("node", "run", "folder"),
    [
        ({}, {}, ""),
        ({}, {"state-dir": "/run"}, "/run"),
        ({"state-dir": "/device"}, {"state-dir": "/run"}, "/device"),
        ({"state-dir": ""}, {"state-dir": "/run"}, ""),
    ],
)
def test_what_the_device_says_wins(
    node: dict[str, Any], run: dict[str, Any], folder: str
) -> None:
    home = home_told(node, run)
    assert (home.client, home.folder, home.state_dir) == ("client-0", folder, folder)
    assert home.cache("data") == (Path(folder, "data") if folder else None)


def test_what_runs_share_is_not_in_the_directory_of_one(tmp_path: Path) -> None:
    kept = tmp_path / "clients"
    home = home_told({}, {"resume-from": str(tmp_path), "state-dir": str(kept)})
    assert home.store("run").write("gate-1.npy", b"1")
    assert [path.name for path in kept.rglob("*.npy")] == ["gate-1.npy"]
    assert home.state_dir == "" and home.cache("features") is None
    assert isinstance(home.bases(), ContextStore)


def test_virtual_clients_of_a_run_do_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def synced(state_dir: str) -> int:
        home = home_told({}, {"resume-from": str(tmp_path), "state-dir": state_dir})
        store = home.store("run")
        assert store.write("gate-1.npy", b"1")  # makes the folders as well
        calls: list[int] = []
        monkeypatch.setattr(os, "fsync", calls.append)
        assert store.write("gate-2.npy", b"2") and store.read("gate-2.npy") == b"2"
        monkeypatch.undo()
        return len(calls)

    assert synced(str(tmp_path / "clients")) == 0
    assert synced(str(tmp_path / "elsewhere")) == 2  # the file and its name
