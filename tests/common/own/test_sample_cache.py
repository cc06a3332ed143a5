"""Every sample is decoded once, whatever happens to files, processes and disks."""

import errno
import multiprocessing
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from common.own import cache_places, mapped, own_data, unnamed
from common.task import ImageTask
from tests.common.own.files import TASK, Reader, opened, samples, write, write_many


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()
    monkeypatch.setattr(own_data, "find_samples", made)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_many(tmp_path / "data", 30)
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "data"


def expected(root: Path) -> list[tuple[bytes, int]]:
    files = root.rglob("*.bin")
    return sorted((f.read_bytes(), "abc".index(f.parent.name)) for f in files)


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


def damage_samples(folder: Path) -> None:
    [file] = folder.glob("x-*")
    data = bytearray(file.read_bytes())
    data[9] ^= 1
    file.write_bytes(data)


def shorten_samples(folder: Path) -> None:
    [file] = folder.glob("x-*")
    os.truncate(file, 50)


def empty_samples(folder: Path) -> None:
    [file] = folder.glob("x-*")
    file.write_bytes(b"")


def remove_samples(folder: Path) -> None:
    [file] = folder.glob("x-*")
    file.unlink()


def damage_index(folder: Path) -> None:
    data = bytearray((folder / "index").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "index").write_bytes(data)


def empty_index(folder: Path) -> None:
    (folder / "index").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "anew"),
    [
        (damage_samples, 1),
        (shorten_samples, 18),
        (empty_samples, 30),
        (remove_samples, 30),
        (damage_index, 30),
        (empty_index, 30),
    ],
)
def test_what_is_damaged_is_decoded_anew(
    damage: object, anew: int, root: Path, cache: Path, reader: Reader
) -> None:
    opened(root, cache)
    reader.news()
    [folder] = cache.iterdir()
    damage(folder)  # type: ignore[operator]
    assert samples(opened(root, cache)) == expected(root)
    assert len(reader.news()) == anew
    assert samples(opened(root, cache)) == expected(root) and reader.news() == []
    assert len(list(folder.glob("x-*"))) == 1


class Killed(BaseException):
    """Stands for the power that goes."""


def test_a_crash_midway_leaves_the_old_cache(
    root: Path, cache: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(root, cache)
    reader.news()
    [folder] = cache.iterdir()
    index = (folder / "index").read_bytes()
    write_many(root, 5, start=30)
    with monkeypatch.context() as patch:
        patch.setattr(cache_places.Folder, "commit", _kill)
        patch.setattr(cache_places.Folder, "abandon", lambda *_: None)
        with pytest.raises(Killed):
            opened(root, cache)
    assert (folder / "index").read_bytes() == index
    reader.news()
    assert samples(opened(root, cache)) == expected(root)
    assert len(reader.news()) == 5


def _kill(*_: object) -> None:
    raise Killed


def test_a_full_disk_is_one_line_and_gives_the_room_back(
    root: Path, cache: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(root, cache)
    before = samples(opened(root, cache))
    [folder] = cache.iterdir()
    [file] = folder.glob("x-*")
    size = file.stat().st_size
    write_many(root, 5, start=30)
    with monkeypatch.context() as patch:
        patch.setattr(cache_places.Folder, "commit", _no_room)
        with pytest.raises(DataError) as caught:
            opened(root, cache)
    assert (
        str(caught.value) == f"{cache} cannot keep the samples: No space left on device"
    )
    assert file.stat().st_size == size
    for i in range(30, 35):
        (root / f"{'abc'[i % 3]}/{i:05d}.bin").unlink()
    assert samples(opened(root, cache)) == before


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_disk_that_is_full_from_the_start(
    root: Path, cache: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full").open("wb")  # noqa: SIM115 - closed by what is tested
    monkeypatch.setattr(cache_places.Folder, "fresh", lambda _: full)
    monkeypatch.setattr(cache_places.Folder, "abandon", lambda *_: None)
    with pytest.raises(DataError, match="cannot keep the samples: No space left"):
        opened(root, cache)


def _open_at_once(root: Path, cache: Path, results: object) -> None:
    vars(own_data)["find_samples"] = Reader()
    found = [samples(opened(root, cache)) for _ in range(5)]
    results.put(found[-1])  # type: ignore[attr-defined]


def test_two_processes_at_once_do_no_harm(root: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [
        context.Process(target=_open_at_once, args=(root, cache, results))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=200) for _ in workers]
    for worker in workers:
        worker.join(200)
    assert all(each == expected(root) for each in found)
    [folder] = cache.iterdir()
    assert len(list(folder.glob("x-*"))) == 1


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
