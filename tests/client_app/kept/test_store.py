"""What a client keeps: both homes behave alike, and no disk puts a client out."""

import errno
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st

from client_app.kept import store as store_module
from client_app.kept.home import Home
from client_app.kept.store import (
    MOST_WARNINGS,
    ContextStore,
    DirectoryStore,
    Store,
    client_folder,
    folder_name,
    read_array,
)
from common import wire
from tests.client_app.homes import context_of


@pytest.fixture
def store(home: Home) -> Store:
    opened = home.store("run")
    assert isinstance(opened, DirectoryStore) == bool(home.folder)
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
    state = context_of()
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


def test_a_state_directory_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "state", "run", "c")
    store.write("parts/a", b"1")
    shutil.rmtree(tmp_path / "state")
    assert store.names("parts/") == [] and store.read("parts/a") is None
    store.remove("parts/a")
    assert store.write("parts/b", b"2")
    assert store.names("parts/") == ["parts/b"]
    assert store.warnings == []


def test_what_stands_in_the_way_of_a_file_is_moved_aside(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    (store.folder / "gate-1" / "inside").mkdir(parents=True)
    assert store.names("gate-") == [] and store.read("gate-1") is None
    assert store.write("gate-1", b"1")
    assert store.read("gate-1") == b"1" and store.names("") == ["gate-1"]


def test_a_file_in_place_of_a_folder_is_a_warning(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    store.write("parts", b"no folder")
    assert store.names("parts/") == [] and store.read("parts/a") is None
    assert not store.write("parts/a", b"1")
    [warning] = store.warnings
    assert warning.startswith("parts/a cannot be kept: ")


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    store.folder.mkdir(parents=True)
    os.mkfifo(store.folder / "attempts")
    assert store.read("attempts") is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_disk_that_refuses_costs_what_was_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    store.write("a", b"old")

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError(code, os.strerror(code), str(tmp_path))

    monkeypatch.setattr(store_module, "atomic_write", refuse)
    assert not store.write("a", b"new")
    assert store.read("a") == b"old"
    # The server is told, but not where the device keeps things.
    assert store.warnings == [f"a cannot be kept: {os.strerror(code)}"]

    def unreadable(*_: Any, **__: Any) -> NoReturn:
        raise OSError(code, os.strerror(code))

    for method in ("read_bytes", "unlink", "iterdir"):
        monkeypatch.setattr(Path, method, unreadable)
    assert store.read("a") is None
    store.remove("a")
    assert store.names("") == []


def test_warnings_are_few_lines_that_a_report_can_carry(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, "run", "c")
    for number in range(20):
        store.warn(f"\x1b[2J{number}\nübel" + "x" * 500)
        store.warn("twice")
    assert len(store.warnings) == MOST_WARNINGS
    assert store.warnings.count("twice") == 1
    report = wire.TrainReport(
        server_round=1,
        client="c",
        code_hash="",
        num_examples=1,
        expert_samples=[],
        expert_accuracy=[],
        expert_loss=[],
        warnings=store.warnings,
    )
    assert wire.TrainReport.from_record(report.to_record()) == report


def test_only_the_version_asked_for_is_read() -> None:
    array = Array(np.arange(3, dtype=np.float32))
    found = read_array(array.data, wire.version(array))
    assert found is not None and found.data == array.data
    for damaged in (None, b"", array.data[:-1], array.data + b"x", b"\x93NUMPY"):
        assert read_array(damaged, wire.version(array)) is None


# --- names of folders -----------------------------------------------------------------

TRICKY = [
    *("..", ".", "", "/", "../../x", "/etc/passwd", "a/b", "a_b", "a\\b", "a b", "a."),
    *(
        "a ",
        "a\n",
        "\0",
        "pi",
        "Pi",
        "PI",
        "pI",
        "\u00fc",
        "u\u0308",
        "...",
        "~",
        "\ud800",
    ),
    *(
        "x" * 99,
        "x" * 100,
        "x" * 101,
        "x" * 300,
        "X" * 300,
        "\u00fc" * 200,
        ".a",
        "a.b",
    ),
]


def test_plain_names_are_their_own_folder() -> None:
    for name in ("client-0", "pi0", "jetson_1", "pi0.example.org", "-", "a" * 100):
        assert client_folder("s", "run-1", name) == Path("s", "run-1", name)


def check(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in {*names}:
        folder = folder_name(name)
        assert len(folder.encode()) <= 100
        assert folder.isascii() and folder == folder.lower()
        assert folder not in (".", "..") and not {"/", "\\", "\0", " "} & {*folder}
        assert folder[-1] != "."
        # What a file system may take for the same is here the same.
        key = unicodedata.normalize("NFD", folder).casefold()
        assert seen.setdefault(key, name) == name


def test_no_two_names_share_a_folder_and_none_leaves_it() -> None:
    check(TRICKY)
    # Nor does a name that looks like the folder of another.
    check([*TRICKY, *map(folder_name, TRICKY)])


@given(
    st.lists(st.text(alphabet=st.characters() | st.sampled_from("./~aA_")), max_size=9)
)
def test_any_names(names: list[str]) -> None:
    check(names)
