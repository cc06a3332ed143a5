"""Samples from files, and what there cannot be used."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data import HashedPieces
from common.inputs import InputError, prepare
from common.own.found import Skipped
from common.serving.samples import (
    CALIBRATION,
    Batch,
    calibration_samples,
    named_texts,
    read_samples,
    read_texts,
)
from common.serving.servable import Servable
from common.task import ImageTask, Task, TextTask
from tests.common.serving.support import TASK, make_servable

COLOUR = ImageTask(classes=("cat", "dog"), size=(4, 6), scale="none")
TEXT = TextTask(classes=("bad", "good"), length=5, vocabulary=30)
PIECES = HashedPieces(length=5, vocabulary=30)


def servable_of(task: Task) -> Servable:
    """A model that is never asked anything."""
    return Servable(
        predictor=make_servable().predictor,
        task=task,
        run="r",
        server_round=1,
        experts=(),
        find_tokeniser=lambda: PIECES,
    )


def read(path: Path, task: Task) -> tuple[list[Batch], list[Skipped]]:
    parts = [*read_samples(path, servable_of(task))]
    return [p for p in parts if isinstance(p, Batch)], [
        p for p in parts if isinstance(p, Skipped)
    ]


def test_the_array_x_of_an_npz_with_its_labels(tmp_path: Path) -> None:
    x = np.arange(128, dtype=np.uint8).reshape(2, 8, 8)
    np.savez(tmp_path / "a.npz", x=x, y=[1, 2])
    np.savez(tmp_path / "other.npz", x=x, y=np.array([{}, 1], dtype=object))
    np.save(tmp_path / "a.npy", x)
    for name, labels in (
        ("a.npz", [1, 2]),
        ("other.npz", [None, None]),
        ("a.npy", [None, None]),
    ):
        [batch], skipped = read(tmp_path / name, TASK)
        assert (batch.names, batch.labels, skipped) == (["0", "1"], labels, [])
        np.testing.assert_array_equal(batch.x, x)


def test_rows_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((600, 8, 8)) * 16
    x[[3, 400], 1, 1] = np.nan, np.inf
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(600) % 10)
    batches, skipped = read(tmp_path / "a.npz", TASK)
    assert skipped == [
        Skipped("3", "has NaN or infinity"),
        Skipped("400", "has NaN or infinity"),
    ]
    names = [int(name) for batch in batches for name in batch.names]
    assert names == [n for n in range(600) if n not in (3, 400)]
    assert [k for batch in batches for k in batch.labels] == [n % 10 for n in names]
    np.testing.assert_array_equal(np.concatenate([b.x for b in batches]), x[names])


def test_images_become_samples_in_the_tasks_numbers(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "b.png")
    Image.new("RGB", (16, 16), (51, 51, 51)).save(tmp_path / "a.png")
    [batch], _ = read(tmp_path, TASK)
    assert batch.names == ["a.png", "b.png"]
    prepared = prepare(TASK, batch.x)
    assert prepared.shape == (2, 1, 8, 8)
    np.testing.assert_allclose(prepared[0], 51 / 255, rtol=1e-6)
    np.testing.assert_allclose(prepared[1], 1, rtol=1e-6)


def test_a_dark_photo_is_no_mistake(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 3).save(tmp_path / "night.png")
    [batch], _ = read(tmp_path, TASK)
    np.testing.assert_allclose(batch.prepared(TASK), 3 / 255, rtol=1e-6)
    np.savez(tmp_path / "night.npz", x=batch.x)
    [same], _ = read(tmp_path / "night.npz", TASK)
    with pytest.raises(InputError, match="multiply by 16"):
        same.prepared(TASK)


def test_colours_and_axes_stay_where_they_belong(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[1, 5] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    [batch], _ = read(tmp_path / "a.png", COLOUR)
    assert batch.x.dtype == np.uint8
    prepared = prepare(COLOUR, batch.x)
    np.testing.assert_allclose(prepared[0, :, 1, 5] * 255, (10, 20, 30), rtol=1e-5)
    assert np.count_nonzero(prepared) == 3


def test_class_folders_loose_files_and_what_is_no_image(tmp_path: Path) -> None:
    for place in ("cat/1.png", "dog/2.png", "holiday/3.png", "loose.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), "red").save(tmp_path / place)
    whole = (tmp_path / "loose.png").read_bytes()
    bad = {
        "._loose.png": b"\0\5\x16\7Mac OS X",
        "empty.jpg": b"",
        "half.png": whole[: len(whole) // 2],
        "report.pdf": b"%PDF-1.4",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    [batch], skipped = read(tmp_path, COLOUR)
    labels = dict(zip(batch.names, batch.labels, strict=True))
    assert labels == {
        "cat/1.png": "cat",
        "dog/2.png": "dog",
        "holiday/3.png": None,
        "loose.png": None,
    }
    # What a system leaves beside every file is no file of the user's.
    found = sorted(s.name for s in skipped)
    assert found == ["empty.jpg", "half.png", "report.pdf"]
    assert all(s.reason and "\n" not in s.reason for s in skipped)


def test_texts_of_a_file_and_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("good great thing\n", "utf-8")
    [batch], _ = read(tmp_path / "ask.txt", TEXT)
    assert batch.names == ["ask.txt"]
    np.testing.assert_array_equal(batch.x, PIECES.encode(["good great thing"]))
    lines = '{"text": "bad", "label": "bad"}\n{"text": "so so"}\n{"label": "good"}\n'
    (tmp_path / "ask.jsonl").write_text(lines, "utf-8")
    [batch], skipped = read(tmp_path / "ask.jsonl", TEXT)
    assert (len(skipped), batch.labels) == (1, ["bad", None])
    np.testing.assert_array_equal(batch.x, PIECES.encode(["bad", "so so"]))
    long = "x" * 60
    [batch] = read_texts(named_texts(["bad\nidea", long]), servable_of(TEXT))
    assert batch.names == ["bad?idea", "x" * 37 + "..."]
    np.testing.assert_array_equal(batch.x, PIECES.encode(["bad\nidea", long]))
    with pytest.raises(InputError, match="a text is empty"):
        list(named_texts(["good", " "]))


def test_texts_and_token_ids_of_an_npz(tmp_path: Path) -> None:
    texts = ["good great thing", "bad"]
    np.savez(tmp_path / "texts.npz", x=np.array(texts))
    np.savez(tmp_path / "ids.npz", x=PIECES.encode(texts))
    for name in ("texts.npz", "ids.npz"):
        [batch], _ = read(tmp_path / name, TEXT)
        np.testing.assert_array_equal(batch.x, PIECES.encode(texts))
    with pytest.raises(InputError, match="the model takes no texts: its task is image"):
        read(tmp_path / "texts.npz", TASK)


def test_a_large_folder_is_never_whole_in_memory(tmp_path: Path) -> None:
    task = ImageTask(classes=("a", "b"), size=(512, 512), scale="none")
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    for number in range(1, 200):
        (tmp_path / f"{number}.png").hardlink_to(tmp_path / "0.png")
    each = 512 * 512 * 3
    tracemalloc.start()
    seen = sum(
        len(p.names)
        for p in read_samples(tmp_path, servable_of(task))
        if isinstance(p, Batch)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == 200
    assert peak < 60 * each


def test_samples_for_ranges_are_of_all_classes(tmp_path: Path) -> None:
    rows = np.arange(3 * CALIBRATION)
    x = np.broadcast_to(rows[:, None, None, None] % 200, (len(rows), 4, 6, 3))
    np.savez(tmp_path / "a.npz", x=x.astype(np.uint8))
    found = calibration_samples(tmp_path / "a.npz", servable_of(COLOUR))
    assert found.shape == (CALIBRATION, 4, 6, 3)
    assert len(np.unique(found)) > 150
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: expected image data"):
        calibration_samples(tmp_path / "empty", servable_of(COLOUR))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", z=np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    np.savez(tmp_path / "labels.npz", x=np.zeros((2, 8, 8)), y=[1])
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "text.npy").write_text("no array")
    cases: tuple[tuple[str, str], ...] = (
        ("missing.npz", "does not exist"),
        ("other.npz", "x"),
        ("objects.npz", "array 'x': cannot be read"),
        ("labels.npz", "x has 2 samples and y has 1 labels"),
        ("text.npz", "is not an .npz archive"),
        ("text.npy", "cannot be read"),
    )
    for name, told in cases:
        with pytest.raises(InputError, match=told) as error:
            read(tmp_path / name, TASK)
        assert name in str(error.value)
        assert "\n" not in str(error.value)
