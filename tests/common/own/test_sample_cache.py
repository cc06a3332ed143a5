"""Every sample is decoded once: what is kept serves again, whatever has changed."""

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from common.own import mapped, unnamed
from common.task import ImageTask
from tests.common.own.files import (
    TASK,
    Reader,
    expected,
    opened,
    samples,
    write,
    write_many,
)


def test_a_second_message_reads_no_file(
    root: Path, cache: Path, reader: Reader
) -> None:
    first = opened(root, cache)
    assert samples(first) == expected(root) and len(reader.news()) == 30
    second = opened(root, cache)
    assert samples(second) == expected(root)
    assert reader.asked == 1 and reader.news() == []
    assert not second.x.flags.writeable


def test_only_what_is_new_or_changed_is_decoded(
    root: Path, cache: Path, reader: Reader
) -> None:
    before = opened(root, cache)
    kept = samples(before)
    reader.news()
    write_many(root, 5, start=30)
    grown = opened(root, cache)
    assert len(reader.news()) == 5 and samples(grown) == expected(root)
    write(root, "a/00000.bin", b"\xff\xff\xff\xff")
    os.utime(root / "a/00000.bin", ns=(1, 1))
    (root / "b/00001.bin").unlink()
    changed = opened(root, cache)
    assert reader.news() == ["a/00000.bin"] and samples(changed) == expected(root)
    assert changed.rows == 34
    # Whoever has opened it before still sees what was there.
    assert samples(before) == kept


def test_what_has_gone_decodes_nothing(root: Path, cache: Path, reader: Reader) -> None:
    opened(root, cache)
    reader.news()
    for name in ("a/00000.bin", "b/00013.bin", "c/00029.bin"):
        (root / name).unlink()
    assert samples(opened(root, cache)) == expected(root)
    assert reader.news() == []


def test_another_class_of_the_same_file_decodes_nothing(
    root: Path, cache: Path, reader: Reader
) -> None:
    opened(root, cache)
    reader.news()
    turned = ImageTask(classes=("c", "b", "a"), size=(2, 2), channels=1)
    data = opened(root, cache, turned)
    assert reader.news() == []
    assert data.per_class.tolist() == [10, 10, 10]
    row = int(np.flatnonzero((data.x == 0).reshape(30, -1)[:, 0])[0])
    assert data.y[row] == 2


def test_the_order_of_training_does_not_depend_on_what_was_there_first(
    root: Path, cache: Path, reader: Reader
) -> None:
    opened(root, cache)
    write_many(root, 9, start=40)
    (root / "b/00001.bin").unlink()
    write_many(root, 3, start=30)
    grown, fresh = opened(root, cache), opened(root, cache.parent / "other")
    for side in ("train", "held_out"):
        assert np.array_equal(
            grown.x[getattr(grown, side)], fresh.x[getattr(fresh, side)]
        )
        assert np.array_equal(
            grown.y[getattr(grown, side)], fresh.y[getattr(fresh, side)]
        )
    assert grown.digest == fresh.digest
    mine, its = grown.moments(), fresh.moments()
    assert mine and its and mine.mean == its.mean and mine.m2 == its.m2


def test_another_size_is_another_cache(
    root: Path, cache: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(root, cache)
    scaled = TASK.model_copy(update={"scale": "none", "min_samples": 1})
    opened(root, cache, scaled)
    assert len(reader.news()) == 30
    three = ImageTask(classes=("a", "b", "c"), size=(2, 2), channels=3)
    monkeypatch.setattr(Reader, "read", lambda *_: np.zeros((2, 2, 3), np.uint8))
    assert opened(root, cache, three).x.shape == (30, 2, 2, 3)
    assert len(list(cache.iterdir())) == 2


def test_of_one_path_two_caches_are_kept_and_none_of_a_path_that_has_gone(
    root: Path, cache: Path, reader: Reader, tmp_path: Path
) -> None:
    write_many(tmp_path / "gone", 3)
    opened(tmp_path / "gone", cache)
    for file in (tmp_path / "gone").rglob("*.bin"):
        file.unlink()
    for folder in ("gone/a", "gone/b", "gone/c", "gone"):
        (tmp_path / folder).rmdir()
    names = []
    for i, how in enumerate(("resize", "crop", "resize", "crop")):
        task = TASK.model_copy(update={"how": how, "bright": 255.0 + i // 2})
        opened(root, cache, task)
        newest = max(cache.iterdir(), key=lambda p: (p / "index").stat().st_mtime_ns)
        names.append(newest.name)
    assert sorted(p.name for p in cache.iterdir()) == sorted(names[-2:])


def test_without_a_state_directory_the_process_keeps_them(
    root: Path, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unnamed, "_unnamed", OrderedDict())
    first = opened(root, None)
    assert samples(first) == expected(root) and len(reader.news()) == 30
    assert samples(opened(root, None)) == expected(root) and reader.news() == []
    write_many(root, 2, start=30)
    (root / "a/00000.bin").unlink()
    assert samples(opened(root, None)) == expected(root)
    assert reader.news() == ["a/00030.bin", "b/00031.bin"]
    assert samples(first)[0] == (b"\x00\x00\x01\x02", 0)
    for i in range(unnamed.UNNAMED_KEPT):
        unnamed.unnamed(str(i))
    opened(root, None)
    assert len(reader.news()) == 31


def test_a_state_directory_that_may_not_be_written_is_done_without(
    root: Path, reader: Reader, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert samples(opened(root, tmp_path / "file" / "data")) == expected(root)


def test_many_small_pieces_make_the_same_cache(
    root: Path, cache: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.own import sample_cache as module

    monkeypatch.setattr(mapped, "PIECE", 8)
    monkeypatch.setattr(module, "PIECE", 8)
    opened(root, cache)
    (root / "a/00003.bin").unlink()
    write_many(root, 4, start=30)
    assert samples(opened(root, cache)) == expected(root)
