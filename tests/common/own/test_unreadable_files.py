"""Files that cannot be read are named and skipped, and tried again."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from tests.common.own.files import (
    Reader,
    expected,
    opened,
    samples,
    write,
)


def test_what_could_not_be_read_is_tried_again(
    root: Path, cache: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", _gone)
        with pytest.raises(DataError, match="and 27 more"):
            opened(root, cache)
    read = Reader.read

    def one_gone(self: Reader, file: Path, name: str) -> np.ndarray:
        return _gone() if name == "a/00000.bin" else read(self, file, name)

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", one_gone)
        data = opened(root, cache)
    [skipped] = data.skipped
    assert (data.rows, skipped.name) == (29, "a/00000.bin")
    assert skipped.reason == "No such file or directory"
    reader.news()
    assert opened(root, cache).rows == 30 and reader.news() == ["a/00000.bin"]


def _gone(*_: object) -> np.ndarray:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x")


def test_a_file_that_vanishes_after_it_was_decoded_does_not_stop_the_round(
    root: Path, cache: Path, reader: Reader
) -> None:
    data = opened(root, cache)
    all_there = expected(root)
    for file in root.rglob("*.bin"):
        file.unlink()
    assert samples(data) == all_there
    with pytest.raises(DataError, match="holds no sample"):
        opened(root, cache)


def test_a_broken_file_is_skipped_once_and_named(
    root: Path, cache: Path, reader: Reader
) -> None:
    for i in range(5):
        write(root, f"a/broken{i}.bin", b"123")
    data = opened(root, cache)
    assert data.rows == 30 and len(data.skipped) == 5
    assert data.notes[0] == (
        "5 skipped: a/broken0.bin (has 3 bytes), a/broken1.bin (has 3 bytes), "
        "a/broken2.bin (has 3 bytes) and 2 more"
    )
    reader.news()
    assert opened(root, cache).notes == data.notes and reader.news() == []


def test_samples_of_another_shape_are_skipped(
    root: Path, cache: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader, "read", lambda *_: np.zeros((3, 3, 1), np.uint8))
    with pytest.raises(DataError, match=r"has shape \(3, 3, 1\): expected \(2, 2, 1\)"):
        opened(root, cache)
