"""Windows of readings: from rows, from arrays and from sounds."""

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from common.task import SeriesTask
from tests.common.own.finding import found, labels

TASK = SeriesTask(classes=("walk", "sit"), channels=("ax", "ay"), length=3, stride=2)


def csv(
    path: Path, rows: Sequence[tuple[object, ...]], header: str = "t,ay,ax,label"
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines))
    return path


def test_rows_of_one_class_are_cut_into_windows(tmp_path: Path) -> None:
    rows = [(t, 10 + t, t, "walk") for t in range(6)]
    rows += [(t, 10 + t, t, "sit") for t in range(6, 9)]
    samples, skipped = found(csv(tmp_path / "a.csv", rows), TASK)
    assert not skipped
    assert [(s.name, s.label, s.group) for s in samples] == [
        ("a.csv#2", "walk", "a.csv#2"),
        ("a.csv#4", "walk", "a.csv#2"),
        ("a.csv#8", "sit", "a.csv#8"),
    ]
    x = samples[1].value()
    assert x.dtype == np.float32 and x.flags.c_contiguous
    assert x.tolist() == [[2, 3, 4], [12, 13, 14]]


def test_windows_that_do_not_overlap_are_of_no_group(tmp_path: Path) -> None:
    task = TASK.model_copy(update={"stride": 0})
    rows = [(t, t, t, "walk") for t in range(7)]
    samples, _ = found(csv(tmp_path / "a.csv", rows), task)
    assert [(s.name, s.group) for s in samples] == [
        ("a.csv#2", None),
        ("a.csv#5", None),
    ]


def test_steps_may_be_longer_than_windows(tmp_path: Path) -> None:
    task = TASK.model_copy(update={"stride": 5})
    rows = [(t, t, t, "walk") for t in range(3000)]
    samples, _ = found(csv(tmp_path / "a.csv", rows), task)
    firsts = [s.value()[0, 0] for s in samples]
    assert firsts == [*range(0, 2998, 5)]


@given(
    readings=st.integers(0, 40),
    length=st.integers(2, 9),
    step=st.integers(1, 12),
    batch=st.integers(1, 11),
)
def test_windows_do_not_depend_on_how_rows_are_read(
    tmp_path_factory: pytest.TempPathFactory,
    readings: int,
    length: int,
    step: int,
    batch: int,
) -> None:
    task = TASK.model_copy(update={"length": length, "stride": step})
    path = csv(
        tmp_path_factory.mktemp("w") / "a.csv",
        [(t, t, t, "sit") for t in range(readings)],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.own.columns.BATCH", batch)
        samples, skipped = found(path, task)
    starts = range(0, readings - length + 1, step)
    assert [s.name for s in samples] == [f"a.csv#{start + 2}" for start in starts]
    for sample, start in zip(samples, starts, strict=True):
        assert sample.value()[0].tolist() == [*range(start, start + length)]
    assert len(skipped) == (0 < readings < length)


def test_what_gives_no_window_is_named(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(0, 1, 1, "walk")] * 2
    rows += [(0, 1, 1, "")] * 4
    rows += [(0, 1, 1, "sit"), (0, 1, "x", "sit")]
    rows += [(0, 1, 1, "sit")] * 3
    samples, skipped = found(csv(tmp_path / "a.csv", rows), TASK)
    assert [s.name for s in samples] == ["a.csv#10"]
    in_a_row = "of one class in a row, in the order of the file: a window has 3"
    assert skipped == {
        "a.csv#2": f"2 readings {in_a_row}",
        "a.csv#4": "4 readings: label is empty",
        "a.csv#8": f"1 reading {in_a_row}",
        "a.csv#9": "ax: 'x' is no number",
    }


def test_the_column_of_groups_ends_a_recording_and_names_it(tmp_path: Path) -> None:
    task = TASK.model_copy(update={"group_column": "person"})
    rows = [(t, t, t, "walk", t // 4) for t in range(8)]
    path = csv(tmp_path / "a.csv", rows, "t,ay,ax,label,person")
    samples, _ = found(path, task)
    assert [(s.name, s.group) for s in samples] == [("a.csv#2", "0"), ("a.csv#6", "1")]


def test_files_in_class_folders_need_no_column(tmp_path: Path) -> None:
    rows = [(t, t, t) for t in range(3)]
    csv(tmp_path / "walk" / "a.csv", rows, "t,ay,ax")
    csv(tmp_path / "sit" / "monday" / "b.csv", rows, "t,ay,ax")
    assert labels(tmp_path, TASK) == [
        ("sit/monday/b.csv#2", "sit"),
        ("walk/a.csv#2", "walk"),
    ]
    loose = csv(tmp_path / "c.csv", rows, "t,ay,ax")
    with pytest.raises(DataError, match="no column 'label'"):
        found(loose, TASK)
    assert labels(loose, TASK, labelled=False) == [("c.csv#2", None)]


def test_parquet_of_counts(tmp_path: Path) -> None:
    counts = pa.array([-32768, 0, 32767], pa.int16())
    rows = pa.table({"ax": counts, "ay": counts, "label": ["sit"] * 3})
    pq.write_table(rows, tmp_path / "a.parquet")
    (sample,), _ = found(tmp_path / "a.parquet", TASK)
    assert sample.value().tolist() == [[-32768, 0, 32767]] * 2


@pytest.mark.parametrize(
    "dtype", [np.int16, np.uint8, np.int64, np.float64, np.float16]
)
def test_arrays_of_any_numbers_and_either_order(tmp_path: Path, dtype: Any) -> None:
    last = np.arange(12).reshape(2, 3, 2).astype(dtype)
    first = np.ascontiguousarray(last.swapaxes(1, 2))
    expected = first.astype(np.float32)
    for name, x in {"last": last, "first": first}.items():
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.array(["sit", "walk"]))
        samples, _ = found(tmp_path / f"{name}.npz", TASK)
        assert [s.label for s in samples] == ["sit", "walk"]
        got = np.stack([s.value() for s in samples])
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)


def test_channels_come_first_where_both_orders_fit(tmp_path: Path) -> None:
    task = TASK.model_copy(update={"length": 2})
    x = np.arange(4.0).reshape(1, 2, 2)
    np.savez(tmp_path / "a.npz", x=x, y=[0])
    (sample,), _ = found(tmp_path / "a.npz", task)
    assert sample.value().tolist() == [[0, 1], [2, 3]]


def test_long_recordings_in_arrays_are_cut(tmp_path: Path) -> None:
    x = np.arange(14).reshape(1, 7, 2)
    np.savez(tmp_path / "a.npz", x=x, y=[0])
    samples, _ = found(tmp_path / "a.npz", TASK)
    assert [(s.name, s.group) for s in samples] == [
        ("a.npz#0:0", "a.npz#0"),
        ("a.npz#0:2", "a.npz#0"),
        ("a.npz#0:4", "a.npz#0"),
    ]
    assert samples[2].value().tolist() == [[8, 10, 12], [9, 11, 13]]


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 5), (4, 2, 2), (4,)])
def test_arrays_of_other_shapes_are_one_line(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(shape), y=np.zeros(4, int))
    with pytest.raises(DataError, match=r"expected shape \(samples, 3, 2\)"):
        found(tmp_path / "a.npz", TASK)


@pytest.mark.parametrize(
    ("width", "data", "expected"),
    [
        (1, bytes([0, 128, 192]), [-1, 0, 0.5]),
        (2, b"\x00\x80\x00\x00\x00\x40", [-1, 0, 0.5]),
        (3, b"\x00\x00\x80\x00\x00\x00\x00\x00\x40", [-1, 0, 0.5]),
        (4, b"\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00\x40", [-1, 0, 0.5]),
    ],
)
def test_sounds_are_from_minus_one_to_one(
    tmp_path: Path, width: int, data: bytes, expected: list[float]
) -> None:
    task = SeriesTask(classes=("walk", "sit"), channels=1, length=3, rate=50)
    path = tmp_path / "walk" / "a.wav"
    path.parent.mkdir()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(50)
        file.writeframes(data)
    (sample,), skipped = found(tmp_path, task)
    assert not skipped
    assert (sample.name, sample.label) == ("walk/a.wav#0", "walk")
    assert sample.value().tolist() == [expected]
    other = task.model_copy(update={"rate": 44.0})
    _, skipped = found(tmp_path, other)
    assert skipped == {"walk/a.wav": "50 readings a second: the task has 44"}
    path.write_bytes(path.read_bytes()[:20])
    _, skipped = found(tmp_path, task)
    assert "cannot be read as a WAV file" in skipped["walk/a.wav"]


def test_sounds_in_floats_are_told_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "walk" / "a.wav"
    path.parent.mkdir()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 50, 0, "NONE", "not compressed"))
        file.writeframes(bytes(200))
    data = bytearray(path.read_bytes())
    data[20] = 3  # the format of numbers: floats
    path.write_bytes(data)
    _, skipped = found(tmp_path, TASK)
    assert skipped == {
        "walk/a.wav": "holds floats, or is packed: save it as 16 bit PCM"
    }
