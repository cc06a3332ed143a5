"""What a client keeps: both homes behave alike, and a half-written file is not read."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client_app.store import (
    ContextStore,
    DirectoryStore,
    Store,
    client_folder,
    load_model,
    open_store,
    save_model,
)
from common.wire import TrainOrder

ORDER = TrainOrder(run="r", server_round=3, experts=[1], num_experts=4, top_k=1)


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


def test_the_model_a_round_ended_with(tmp_path: Path) -> None:
    folder = client_folder(tmp_path, "run", "../c")
    assert folder.parent == tmp_path / "run"
    assert load_model(folder) is None
    vectors = {"extractor": np.arange(3, dtype=np.float32), "gate": np.ones(2, "f4")}
    store = DirectoryStore(tmp_path, "run", "../c")
    save_model(store, ORDER, vectors)
    loaded = load_model(folder)
    assert loaded is not None
    order, received = loaded
    assert order == ORDER
    assert received.keys() == vectors.keys()
    np.testing.assert_array_equal(received["extractor"], [0, 1, 2])
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-3])
    with pytest.raises(ValueError, match="not a client's model"):
        load_model(folder)
