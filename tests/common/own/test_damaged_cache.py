"""The samples that are kept, after damage, power cuts, full disks and each other."""

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from common.errors import DataError
from common.own import cache_places, own_data
from tests.common.own.files import (
    Reader,
    expected,
    opened,
    samples,
    write_many,
)


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
