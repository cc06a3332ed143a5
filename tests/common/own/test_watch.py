"""Whether files have changed is seen without opening them."""

import os
from pathlib import Path

import pytest

from common.own.watch import state_of
from tests.common.own.files import write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "data", "a/1.bin", b"1")
    write(tmp_path / "data", "b/2.bin", b"2")
    return tmp_path / "data"


def test_what_changes_a_state(root: Path) -> None:
    states = [state_of(root), state_of(root, "other classes")]
    write(root, "a/3.bin", b"3")
    states.append(state_of(root))
    write(root, "a/1.bin", b"12")
    states.append(state_of(root))
    os.utime(root / "a/1.bin", ns=(1, 1))
    states.append(state_of(root))
    (root / "a/1.bin").chmod(0o600)
    (root / "a/1.bin").chmod(0o644)  # readable again
    states.append(state_of(root))
    (root / "b/2.bin").rename(root / "a/2.bin")
    states.append(state_of(root))
    (root / "b").rmdir()
    states.append(state_of(root))
    assert len({*states}) == len(states)


def test_what_does_not(root: Path) -> None:
    before = state_of(root)
    write(root, "a/.1.bin.swp", b"")
    assert state_of(root) == before
    (root / "a/.1.bin.swp").unlink()
    assert state_of(root) == before


def test_links_are_followed_but_not_in_circles(root: Path, tmp_path: Path) -> None:
    (root / "c").symlink_to(root)
    write(tmp_path, "else/3.bin", b"3")
    (root / "d").symlink_to(tmp_path / "else")
    before = state_of(root)
    assert state_of(root) == before
    write(tmp_path, "else/3.bin", b"33")
    assert state_of(root) != before


def test_one_file_and_none(root: Path) -> None:
    one, none = state_of(root / "a/1.bin"), state_of(root / "a/9.bin")
    assert one != none
    write(root, "a/9.bin", b"")
    assert state_of(root / "a/9.bin") != none


def test_an_array_has_its_labels_beside_it(root: Path) -> None:
    write(root, "x.npy", b"1")
    alone = state_of(root / "x.npy")
    write(root, "y.npy", b"1")
    assert state_of(root / "x.npy") != alone
