"""What is private survives rounds, restarts and replays, and damaged files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client_app.kept.private import Private, rounds_kept
from client_app.kept.store import ContextStore, DirectoryStore, Store
from common.parts import Vector
from tests.client_app.homes import context_of

KEPT = 4


class Gates:
    """What is kept of one name, seen alone."""

    def __init__(self, store: Store, attempt: int, *, kept: int) -> None:
        self._private = Private(store, attempt, sizes={"gate": 3}, kept=kept)

    def load(self, before_round: int, merged_round: int = 0) -> Vector | None:
        return self._private.load(before_round, merged_round).get("gate")

    def save(self, server_round: int, gate: Vector) -> None:
        self._private.save(server_round, {"gate": gate})


def gate(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def on_disk(
    place: Path, run: str = "run", client: str = "client-0", attempt: int = 0
) -> Gates:
    store = DirectoryStore(place, run, client)
    return Gates(store, attempt, kept=KEPT)


@pytest.fixture(params=["context", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Gates:
    if request.param == "directory":
        return on_disk(tmp_path)
    return Gates(ContextStore(context_of(), "run"), 0, kept=KEPT)


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


def test_a_resumed_round_leaves_nothing_of_its_first_time(tmp_path: Path) -> None:
    first = on_disk(tmp_path, attempt=77)
    for server_round in (1, 2):
        first.save(server_round, gate(server_round))
    # Round 2 is repeated by a resumed run, and the client is not asked in it: what it
    # starts round 3 from must not be the gate of a round that never was.
    resumed = on_disk(tmp_path, attempt=5)
    resumed.load(before_round=2)
    np.testing.assert_array_equal(resumed.load(before_round=3), gate(1))


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


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other(value: object, dtype: object = np.float32) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        np.save(path, np.array(value, dtype))  # type: ignore[call-overload]

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "header": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x05\x00((((("),
    "zip": lambda path: path.write_bytes(b"PK\x03\x04"),
    "shape": other([1, 2]),
    "rank": other([[1, 2, 3]]),
    "dtype": other([1, 2, 3], np.float64),
    "objects": other([{}, {}, {}], object),
    "NaN": other([1, np.nan, 3]),
    "infinity": other([1, np.inf, 3]),
    "directory": replaced,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_gate_gives_way_to_the_one_before(
    tmp_path: Path, damage: str
) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    gates = Gates(store, 0, kept=KEPT)
    gates.save(1, gate(1))
    gates.save(2, gate(2))
    DAMAGE[damage](tmp_path / "run" / "c" / "gate-2.npy")
    np.testing.assert_array_equal(gates.load(3, merged_round=2), gate(1))
    assert store.warnings[-1] == (
        "the private gate of round 2 is not here: it goes on from round 1's"
    )
    # And the next round is kept as if nothing had been.
    gates.save(2, gate(22))
    np.testing.assert_array_equal(gates.load(3), gate(22))


def test_who_has_lost_its_gate_says_so_and_starts_afresh(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    gates = Gates(store, 0, kept=KEPT)
    assert gates.load(1) is None
    assert gates.load(5) is None
    assert store.warnings == []  # nothing was expected
    assert gates.load(5, merged_round=3) is None
    assert store.warnings == [
        "the private gate of round 3 is not here: it starts from a fresh one"
    ]


def test_files_that_are_no_gates_are_passed_over(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    gates = Gates(store, 0, kept=KEPT)
    gates.save(1, gate(1))
    for name in ("gate-x.npy", "gate-.npy", "gate-2", "gate-2.npy.old", "gate-٢.npy"):
        (store.folder / name).write_bytes(b"")
    np.testing.assert_array_equal(gates.load(9), gate(1))
    assert store.warnings == []


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b"  ", None])
def test_damaged_attempts_cost_nothing(tmp_path: Path, data: bytes | None) -> None:
    store = on_disk(tmp_path, client="c", attempt=5)
    store.save(1, gate(1))
    attempts = tmp_path / "run" / "c" / "attempts"
    replaced(attempts) if data is None else attempts.write_bytes(data)
    np.testing.assert_array_equal(store.load(before_round=2), gate(1))
    store.save(2, gate(2))
    np.testing.assert_array_equal(store.load(before_round=3), gate(2))


def test_what_is_not_finite_is_never_saved(store: Gates) -> None:
    store.save(1, gate(1))
    for bad in (np.nan, np.inf):
        store.save(2, gate(bad))
    np.testing.assert_array_equal(store.load(before_round=9), gate(1))


@pytest.mark.parametrize("keep", [1, 3, 8])
def test_there_is_a_gate_for_every_round_the_server_may_go_back_to(
    tmp_path: Path, keep: int
) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    gates = Gates(store, 1, kept=rounds_kept(store, keep))
    # Round 21 is under way; the server has 20 and the keep - 1 before it.
    for server_round in range(1, 22):
        gates.save(server_round, gate(server_round))
    for completed in range(20, 20 - keep, -1):
        resumed = gates.load(before_round=completed + 1)
        np.testing.assert_array_equal(resumed, gate(completed))
    assert gates.load(before_round=21 - keep) is None


def test_a_name_cannot_leave_the_state_directory(tmp_path: Path) -> None:
    on_disk(tmp_path / "state", "run", "../../evil").save(1, gate(1))
    assert list((tmp_path / "state" / "run").iterdir())
    assert not (tmp_path / "evil").exists()


def both(place: Path, attempt: int) -> Private:
    store = DirectoryStore(place, "run", "c")
    return Private(store, attempt, sizes={"gate": 3, "model": 2}, kept=KEPT)


def model(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


def test_each_name_is_a_vector_of_its_own(tmp_path: Path) -> None:
    private = both(tmp_path, 1)
    private.save(1, {"gate": gate(1), "model": model(10)})
    private.save(2, {"model": model(20)})  # a round may end with one of them
    found = private.load(3)
    np.testing.assert_array_equal(found["gate"], gate(1))
    np.testing.assert_array_equal(found["model"], model(20))
    assert both(tmp_path, 1).load(1) == {}


def test_a_new_attempt_drops_later_rounds_of_all_names_at_once(
    tmp_path: Path,
) -> None:
    for server_round in (1, 2, 3):
        saved = {"gate": gate(server_round), "model": model(10 * server_round)}
        both(tmp_path, 77).save(server_round, saved)
    # The first thing the resumed run does: nothing of round 2 and 3 is left, though
    # this one keeps no gate.
    store = DirectoryStore(tmp_path, "run", "c")
    Private(store, 5, sizes={"model": 2}, kept=KEPT).load(2)
    found = both(tmp_path, 5).load(9)
    np.testing.assert_array_equal(found["gate"], gate(1))
    np.testing.assert_array_equal(found["model"], model(10))


def test_who_keeps_nothing_leaves_no_file(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    private = Private(store, 1, sizes={}, kept=KEPT)
    assert private.load(4, merged_round=3) == {}
    private.save(4, {})
    assert store.warnings == [] and not list(tmp_path.rglob("*"))
