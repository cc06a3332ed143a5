"""The power cut of the benchmarks: what was synced stays, what was not may go."""

import os
import random
import tempfile
from pathlib import Path

from benchmarks.power_cut import Disk, survive


def left(root: Path, journal: Path, name: str, tries: int = 60) -> set[str | None]:
    """Return all that may be left of a file: its text, None without it."""
    found = set()
    for seed in range(tries):
        target = Path(tempfile.mkdtemp(dir=journal.parent), "left")
        survive(root, journal, target, random.Random(seed))
        path = target / name
        found.add(path.read_text() if path.exists() else None)
    return found


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    root, journal = tmp_path / "root", tmp_path / "journal"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a").write_text("old")
    with Disk(root, journal):
        pass
    assert left(root, journal, "in/a") == {"old"}


def test_bytes_that_were_not_synced_are_there_or_gone_or_cut_or_zeros(
    tmp_path: Path,
) -> None:
    root, journal = tmp_path / "root", tmp_path / "journal"
    root.mkdir()
    (root / "a").write_text("old")
    with Disk(root, journal), (root / "a").open("a") as file:
        file.write("+n")
    assert left(root, journal, "a") == {"old", "old+", "old+n", "old+\0", "old\0\0"}


def test_a_synced_file_without_a_synced_name_may_be_gone(tmp_path: Path) -> None:
    root, journal = tmp_path / "root", tmp_path / "journal"
    with Disk(root, journal):
        (root / "a").write_text("new")
        sync(root / "a")
    assert left(root, journal, "a") == {"new", None}
    with Disk(root, journal):
        sync(root)
    assert left(root, journal, "a") == {"new"}


def test_a_rename_counts_once_its_directory_is_synced(tmp_path: Path) -> None:
    root, journal = tmp_path / "root", tmp_path / "journal"
    root.mkdir()
    (root / "a").write_text("old")
    with Disk(root, journal):
        (root / "b").write_text("new")
        sync(root / "b")
        os.replace(root / "b", root / "a")
        assert left(root, journal, "a") == {"old", "new"}
        sync(root)
        assert left(root, journal, "a") == {"new"}


def test_what_was_removed_may_come_back(tmp_path: Path) -> None:
    root, journal = tmp_path / "root", tmp_path / "journal"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a").write_text("old")
    with Disk(root, journal):
        (root / "in" / "a").unlink()
        (root / "in").rmdir()
        assert left(root, journal, "in/a") == {"old", None}
        sync(root)
        assert left(root, journal, "in/a") == {None}


def test_moments_lie_around_syncs_and_changes_of_names(tmp_path: Path) -> None:
    def act() -> None:
        (tmp_path / "root" / "a").write_text("x")
        os.replace(tmp_path / "root" / "a", tmp_path / "root" / "b")
        sync(tmp_path / "root")

    seen = []
    with Disk(tmp_path / "root", tmp_path / "j", lambda: seen.append("cut"), 3) as disk:
        act()
    assert (disk.moments, seen) == (4, ["cut"])


def test_a_replaced_file_of_json_is_left_as_a_file(tmp_path: Path) -> None:
    root, journal = tmp_path / "root", tmp_path / "journal"
    root.mkdir()
    (root / "a").write_text('{"b": 1}')
    with Disk(root, journal):
        (root / "new").write_text('{"b": 2}')
        sync(root / "new")
        os.replace(root / "new", root / "a")
        assert left(root, journal, "a") == {'{"b": 1}', '{"b": 2}'}
