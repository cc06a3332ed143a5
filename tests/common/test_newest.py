"""What is read again when it changes, and kept where it cannot be read."""

import logging

import pytest

from common.newest import Newest


class Shelf:
    def __init__(self) -> None:
        self.number, self.said, self.reads = 1, "one", 0

    def version(self) -> int:
        if self.number < 0:
            raise OSError("gone")
        return self.number

    def read(self) -> str:
        self.reads += 1
        if not self.said:
            raise OSError("half a file")
        return self.said


def made(shelf: Shelf) -> Newest[str]:
    log = logging.getLogger("test")
    return Newest("what was", shelf.version, shelf.read, OSError, log)


def test_it_is_read_when_it_changes_and_only_then() -> None:
    shelf = Shelf()
    newest = made(shelf)
    shelf.said = "two"
    assert not newest.refresh()
    assert (newest.value, shelf.reads) == ("one", 1)
    shelf.number = 2
    assert newest.refresh()
    assert not newest.refresh()
    assert (newest.value, shelf.reads) == ("two", 2)


def test_what_cannot_be_read_is_told_once_and_leaves_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf = Shelf()
    newest = made(shelf)
    shelf.number, shelf.said = 2, ""
    assert not newest.refresh()
    assert not newest.refresh()
    assert caplog.messages == ["keeping what was: half a file"]
    shelf.number = -1
    assert not newest.refresh()
    assert newest.value == "one"
    shelf.number, shelf.said = 3, "three"
    assert newest.refresh()
    assert newest.value == "three"


def test_the_first_must_be_there() -> None:
    shelf = Shelf()
    shelf.said = ""
    with pytest.raises(OSError, match="half"):
        made(shelf)
