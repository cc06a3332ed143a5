"""What a client keeps: both homes behave alike, and a half-written file is not read."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from client_app.store import (
    ContextStore,
    DirectoryStore,
    Store,
    open_store,
)


def context() -> Context:
    return Context(
        run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}
    )


@pytest.fixture(params=["context", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    home = str(tmp_path) if request.param == "directory" else ""
    opened = open_store(context(), home, "run", "client-0")
    assert isinstance(opened, DirectoryStore) == bool(home)
    return opened


def test_write_read_remove(store: Store) -> None:
    assert store.read("a") is None
    assert store.names("") == []
    store.write("parts/a", b"1")
    store.write("parts/b", b"2")
    store.write("parts/a", b"3")
    store.write("gate-1", b"4")
    assert store.names("parts/") == ["parts/a", "parts/b"]
    assert store.names("gate-") == ["gate-1"]
    assert store.read("parts/a") == b"3"
    store.remove("parts/a")
    store.remove("never there")
    assert store.names("parts/") == ["parts/b"]


def test_runs_and_clients_are_apart(tmp_path: Path) -> None:
    state = context()
    ContextStore(state, "one").write("a", b"1")
    assert ContextStore(state, "two").read("a") is None
    DirectoryStore(tmp_path, "one", "client-0").write("a", b"1")
    assert DirectoryStore(tmp_path, "one", "client-1").read("a") is None
    assert DirectoryStore(tmp_path, "two", "client-0").read("a") is None


def test_what_was_being_written_when_the_power_went_is_no_name(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    store.write("gate-1", b"1")
    (store.folder / ".gate-2-x7f").write_bytes(b"ha")
    assert store.names("") == ["gate-1"]
