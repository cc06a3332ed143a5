"""A device's own data: classes, sides and counts."""

from pathlib import Path

import numpy as np
import pytest

from common.data import HashedPieces
from common.errors import DataError
from common.own import own_data
from common.own.found import Found
from common.own.own_data import open_own_data
from common.task import Task, parse_task
from tests.common.own.files import TABLE, Give, Reader, opened, write, write_many


def test_it_is_client_data(tmp_path: Path, reader: Reader) -> None:
    write_many(tmp_path, 300)
    data = opened(tmp_path, None)
    assert (data.rows, data.num_classes, data.kind) == (300, 3, "float32")
    assert data.per_class.tolist() == [100, 100, 100]
    assert len(data.y_train) + len(data.y_held_out) == 300
    assert not {*data.train} & {*data.held_out}
    assert 30 < len(data.held_out) < 90
    assert data.own_test is None and data.format == "bin"
    x = data.normalise(data.x_train[:2])
    assert x.shape == (2, 1, 2, 2) and x.dtype == np.float32


def test_growth_moves_no_row_across(tmp_path: Path, reader: Reader) -> None:
    write_many(tmp_path, 60)
    before = opened(tmp_path, None)
    sides = {
        side: {before.x[row].tobytes() for row in getattr(before, side)}
        for side in ("train", "held_out")
    }
    write_many(tmp_path, 60, start=60)
    grown = opened(tmp_path, None)
    for side, were in sides.items():
        assert were <= {grown.x[row].tobytes() for row in getattr(grown, side)}


def test_a_digest_changes_with_every_sample(tmp_path: Path, reader: Reader) -> None:
    write_many(tmp_path, 12)
    reader.groups = {"a/00000.bin": "g", "a/00003.bin": "g"}
    digests = [opened(tmp_path, None).digest]
    write(tmp_path, "a/00000.bin", b"\x09\x09\x09\x09")  # in a group
    digests.append(opened(tmp_path, None).digest)
    (tmp_path / "b/00001.bin").rename(tmp_path / "c/00001.bin")
    digests.append(opened(tmp_path, None).digest)
    (tmp_path / "c/00001.bin").unlink()
    digests.append(opened(tmp_path, None).digest)
    assert len({*digests}) == 4


def test_copies_and_groups_stay_whole(tmp_path: Path, reader: Reader) -> None:
    for i in range(40):
        for copy in range(3):
            write(tmp_path, f"a/copy{i}-{copy}.bin", bytes([i, 9, 9, 9]))
            write(tmp_path, f"b/group{i}-{copy}.bin", bytes([i, copy, 8, 8]))
            reader.groups[f"b/group{i}-{copy}.bin"] = f"patient {i}"
    data = opened(tmp_path, None)
    firsts = [
        {(x[0], x[2]) for x in data.x[rows].reshape(-1, 4).tolist()}
        for rows in (data.train, data.held_out)
    ]
    assert not firsts[0] & firsts[1] and len(firsts[0] | firsts[1]) == 80
    assert (data.groups, data.copies) == (40, 80)
    assert firsts[1]


def test_what_lies_in_a_test_folder_is_never_trained_on(
    tmp_path: Path, reader: Reader
) -> None:
    write_many(tmp_path / "train", 60)
    write_many(tmp_path / "test", 9, start=100)
    write(tmp_path, "train/a/copy.bin", bytes([100, 0, 1, 2]))
    data = opened(tmp_path, None)
    assert data.own_test is not None and len(data.own_test) == 9
    assert {*data.own_test} < {*data.held_out}
    assert {x[0, 0, 0] for x in data.x[data.own_test]} == {*range(100, 109)}
    assert 100 not in {x[0, 0, 0] for x in data.x_train}
    only = opened(tmp_path / "test", None)
    assert only.own_test is None  # it is what was asked for


def test_a_device_with_test_files_only(tmp_path: Path, reader: Reader) -> None:
    write_many(tmp_path / "test", 9)
    data = opened(tmp_path, None)
    assert len(data.train) == 0 and len(data.held_out) == 9
    assert "nothing to train on: all samples are for testing" in data.notes
    assert data.moments() is None


@pytest.mark.parametrize("count", [1, 3])
def test_few_samples_are_trained_on(count: int, tmp_path: Path, reader: Reader) -> None:
    write_many(tmp_path, count)
    data = opened(tmp_path, None)
    assert data.rows == count and len(data.train) >= 1
    if count == 1:
        assert "nothing is held out: there is no local measure" in data.notes


def test_everything_in_one_group_and_of_one_class(
    tmp_path: Path, reader: Reader
) -> None:
    for i in range(20):
        write(tmp_path, f"b/{i}.bin", bytes([i, 0, 0, 0]))
        reader.groups[f"b/{i}.bin"] = "the only one"
    data = opened(tmp_path, None)
    assert (len(data.train), len(data.held_out)) == (20, 0)
    assert data.per_class.tolist() == [0, 20, 0]


def test_no_sample_is_one_line(tmp_path: Path, reader: Reader) -> None:
    with pytest.raises(DataError) as caught:
        opened(tmp_path, None)
    assert str(caught.value) == f"{tmp_path} holds no sample"
    write(tmp_path, "a/1.bin", b"")
    with pytest.raises(DataError) as caught:
        opened(tmp_path, None)
    assert str(caught.value) == (
        f"{tmp_path} holds no sample that can be used: a/1.bin (has 0 bytes)"
    )


def test_an_unknown_class_is_one_sentence(tmp_path: Path, reader: Reader) -> None:
    write_many(tmp_path, 9)
    write(tmp_path, "bb/1.bin", b"1234")
    with pytest.raises(DataError) as caught:
        opened(tmp_path, None)
    assert str(caught.value) == (
        f"{tmp_path}, bb/1.bin: class 'bb' is none of the task's: a, b, c; did you "
        "mean 'b'?"
    )


def test_numbers_of_arrays_are_the_task_s(give: Give) -> None:
    task = parse_task(TABLE)
    data = give(task, (1, [0, 1]), (0, [1, 1]))
    assert data.y[data.x[:, 0] == 0].tolist() == [1]
    with pytest.raises(DataError, match="class 2 is none of the task's: 0 to 1"):
        give(task, (2, [0, 1]))
    with pytest.raises(DataError, match="has no class"):
        give(task, (None, [0, 1]))


def test_infinity_is_skipped_and_a_missing_number_is_not(give: Give) -> None:
    task = parse_task(TABLE)
    data = give(task, ("a", [np.inf, 1]), ("a", [np.nan, 1]))
    assert data.rows == 1
    assert [s.reason for s in data.skipped] == [
        "holds infinity: expected finite numbers"
    ]


def test_two_tokenisers_do_not_share_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(b"")
    task = parse_task({"kind": "text", "classes": ["a", "b"], "length": 8})

    def found(_: Path, __: Task, tokeniser: HashedPieces) -> object:
        yield Found(
            name="t.jsonl#1",
            label="a",
            value=lambda: tokeniser.encode(["one two"])[0],
            stamp=(1,),
        )

    monkeypatch.setattr(own_data, "find_samples", found)
    words = HashedPieces(length=8)
    first = open_own_data(file, task, words, tmp_path / "cache").x[0].tolist()
    assert first == words.encode(["one two"])[0].tolist()
    monkeypatch.setattr(
        HashedPieces, "encode", lambda *_: np.full((1, 8), 7, dtype=np.uint16)
    )
    second = open_own_data(file, task, words, tmp_path / "cache").x[0].tolist()
    assert second == [7] * 8
