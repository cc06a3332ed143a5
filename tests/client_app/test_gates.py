"""A private gate survives rounds, restarts and replays, and half-written files."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from client_app.gates import KEPT, Gates
from client_app.store import ContextStore, DirectoryStore


def gate(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def on_disk(
    place: Path, run: str = "run", client: str = "client-0", attempt: int = 0
) -> Gates:
    return Gates(DirectoryStore(place, run, client), attempt)


@pytest.fixture(params=["context", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Gates:
    if request.param == "directory":
        return on_disk(tmp_path)
    context = Context(
        run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}
    )
    return Gates(ContextStore(context, "run"))


def test_nothing_saved_yet(store: Gates) -> None:
    assert store.load(before_round=1) is None


def test_the_newest_gate_before_the_round(store: Gates) -> None:
    store.save(1, gate(1))
    store.save(4, gate(4))
    np.testing.assert_array_equal(store.load(before_round=9), gate(4))
    np.testing.assert_array_equal(store.load(before_round=4), gate(1))
    assert store.load(before_round=1) is None


def test_a_replayed_round_starts_from_the_gate_it_started_from(
    tmp_path: Path,
) -> None:
    store = on_disk(tmp_path, attempt=77)
    for server_round in (1, 2, 3):
        store.save(server_round, gate(server_round))
    # The server went back to round 2; what round 3 left must not come back later.
    resumed = on_disk(tmp_path, attempt=5)
    np.testing.assert_array_equal(resumed.load(before_round=2), gate(1))
    resumed.save(2, gate(22))
    np.testing.assert_array_equal(resumed.load(before_round=9), gate(22))


def test_a_dead_attempt_that_ends_late_changes_nothing(tmp_path: Path) -> None:
    dead = on_disk(tmp_path, attempt=77)
    dead.save(1, gate(1))
    dead.load(before_round=2)
    resumed = on_disk(tmp_path, attempt=5)
    for server_round in (2, 3):
        resumed.load(before_round=server_round)
        resumed.save(server_round, gate(server_round))
    dead.save(2, gate(99))
    # Nor does one of its messages that had been waiting and is only begun now.
    dead.load(before_round=3)
    dead.save(4, gate(99))
    np.testing.assert_array_equal(resumed.load(before_round=9), gate(3))
    np.testing.assert_array_equal(resumed.load(before_round=3), gate(2))


def test_a_late_message_of_the_same_attempt_leaves_newer_gates(
    tmp_path: Path,
) -> None:
    store = on_disk(tmp_path, attempt=5)
    for server_round in (1, 3, 2):
        store.save(server_round, gate(server_round))
    np.testing.assert_array_equal(store.load(before_round=9), gate(3))


def test_old_gates_are_dropped(store: Gates) -> None:
    for server_round in range(1, 20):
        store.save(server_round, gate(server_round))
    assert store.load(before_round=20 - KEPT) is None
    assert store.load(before_round=21 - KEPT) is not None


def test_gates_are_apart_by_run_and_client(tmp_path: Path) -> None:
    on_disk(tmp_path, "run", "client-0").save(1, gate(1))
    assert on_disk(tmp_path, "run", "client-1").load(2) is None
    assert on_disk(tmp_path, "other", "client-0").load(2) is None


def test_an_unreadable_file_is_passed_over(tmp_path: Path) -> None:
    store = on_disk(tmp_path, "run", "client-0")
    store.save(1, gate(1))
    store.save(2, gate(2))
    newest = tmp_path / "run" / "client-0" / "gate-2.npy"
    newest.write_bytes(newest.read_bytes()[:60])
    np.testing.assert_array_equal(store.load(before_round=9), gate(1))


def test_a_name_cannot_leave_the_state_directory(tmp_path: Path) -> None:
    on_disk(tmp_path / "state", "run", "../../evil").save(1, gate(1))
    assert list((tmp_path / "state" / "run").iterdir())
    assert not (tmp_path / "evil").exists()
