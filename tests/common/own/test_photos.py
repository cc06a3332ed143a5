"""Folders of images: what each is of, and what is no image."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from common.own.found import class_word
from common.task import ImageTask
from tests.common.own.finding import found, labels

TASK = ImageTask(classes=("cat", "dog"), size=(4, 6))


def put(path: Path, colour: Any = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 4), colour).save(path)


def test_class_folders_give_samples_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path / "dog" / "2024" / "b.png", (10, 20, 30))
    put(tmp_path / "cat" / "z.bmp")
    put(tmp_path / "cat" / "a.jpg")
    put(tmp_path / "site" / "cat" / "c.webp")
    samples, skipped = found(tmp_path, TASK)
    assert [(s.name, s.label) for s in samples] == [
        ("cat/a.jpg", "cat"),
        ("cat/z.bmp", "cat"),
        ("dog/2024/b.png", "dog"),
        ("site/cat/c.webp", "cat"),
    ]
    assert not skipped
    x = samples[2].value()
    assert x.shape == (4, 6, 3) and x.dtype == np.uint8
    assert (x == [10, 20, 30]).all()
    status = (tmp_path / "cat" / "z.bmp").stat()
    assert samples[1].stamp == (status.st_size, status.st_mtime_ns)


def test_no_image_is_opened_before_it_is_decoded(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "a.png").chmod(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", None)
        assert labels(tmp_path, TASK) == [("cat/a.png", "cat")]


def test_train_and_test_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path / "train" / "cat" / "a.png")
    put(tmp_path / "test" / "dog" / "a.png")
    put(tmp_path / "zip" / "Testing" / "2024" / "cat" / "a.png")
    put(tmp_path / "zip" / "validation" / "cat" / "a.png")
    put(tmp_path / "zip" / "cat" / "test" / "a.png")
    samples, _ = found(tmp_path, TASK)
    assert [(s.name, s.label, s.test) for s in samples] == [
        ("test/dog/a.png", "dog", True),
        ("train/cat/a.png", "cat", False),
        ("zip/Testing/2024/cat/a.png", "cat", True),
        ("zip/cat/test/a.png", "cat", False),
        ("zip/validation/cat/a.png", "cat", True),
    ]


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    task = ImageTask(classes=("test", "train"), size=(4, 6))
    put(tmp_path / "train" / "test" / "a.png")
    put(tmp_path / "train" / "train" / "a.png")
    assert [label for _, label in labels(tmp_path, task)] == ["test", "train"]
    other = tmp_path / "other"
    put(other / "test" / "a.png")
    (sample,), _ = found(other, task)
    assert (sample.label, sample.test) == ("test", False)


def test_a_class_that_is_none_is_left_to_whoever_asks(tmp_path: Path) -> None:
    put(tmp_path / "2024" / "dgo" / "a.png")
    assert labels(tmp_path, TASK) == [("2024/dgo/a.png", "dgo")]
    assert labels(tmp_path, TASK, labelled=False) == [("2024/dgo/a.png", None)]


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "a.png")
    for name in ("._a.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / "cat" / "report.pdf").write_bytes(b"%PDF-1.4")
    samples, skipped = found(tmp_path, TASK)
    assert [s.name for s in samples] == ["cat/a.png"]
    assert skipped == {"cat/report.pdf": ".pdf is no image data"}


def test_a_list_says_class_and_group_before_the_folder_does(tmp_path: Path) -> None:
    task = TASK.model_copy(update={"group_column": "patient"})
    for name in ("a.png", "b.png", "c.png", "cat/d.png"):
        put(tmp_path / name)
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,patient,age\na.png,dog,7,1\nb.png,,7,1\nz.png,dog,7,1\n"
        "cat/d.png,dog,8,1\n"
    )
    samples, skipped = found(tmp_path, task)
    assert [(s.name, s.label, s.group) for s in samples] == [
        ("a.png", "dog", "7"),
        ("cat/d.png", "dog", "8"),
    ]
    assert not any(s.note for s in samples)
    assert skipped == {
        "metadata.csv#4": "file_name = 'z.png': there is no such image",
        "b.png": "label is empty",
        "c.png": "lies in no folder that is called by its class",
    }


def test_a_list_that_says_two_things_of_one_image(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    (tmp_path / "list.csv").write_text(
        "file_name,label\n./a.png,dog\na.png,dog\nb.png,dog\nb.png,cat\n"
    )
    samples, skipped = found(tmp_path, TASK)
    assert [(s.name, s.label) for s in samples] == [("a.png", "dog")]
    assert skipped == {"b.png": "list.csv says two different things of it"}


def test_a_group_that_nothing_says_is_noted(tmp_path: Path) -> None:
    task = TASK.model_copy(update={"group_column": "patient"})
    put(tmp_path / "cat" / "a.png")
    (sample,), _ = found(tmp_path, task)
    assert sample.note == "nothing says the patient of it"


def test_a_list_of_groups_alone_leaves_classes_to_folders(tmp_path: Path) -> None:
    task = TASK.model_copy(update={"group_column": "patient"})
    put(tmp_path / "train" / "cat" / "a.png")
    (tmp_path / "train" / "metadata.jsonl").write_text(
        '{"file_name": "cat/a.png", "patient": 7}\n'
    )
    (sample,), skipped = found(tmp_path, task)
    assert (sample.label, sample.group) == ("cat", "7")
    assert not skipped


def test_without_labels_loose_images_are_samples_too(tmp_path: Path) -> None:
    put(tmp_path / "loose.png")
    put(tmp_path / "cat" / "a.png")
    assert labels(tmp_path, TASK, labelled=False) == [
        ("cat/a.png", "cat"),
        ("loose.png", None),
    ]
    assert labels(tmp_path / "loose.png", TASK, labelled=False) == [("loose.png", None)]
    _, skipped = found(tmp_path, TASK)
    assert [*skipped] == ["loose.png"]


def test_a_link_in_circles_ends(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "cat" / "broken.png").symlink_to(tmp_path / "nowhere")
    samples, skipped = found(tmp_path, TASK)
    assert len(samples) == 1
    assert skipped == {
        "cat/again": "a link to a folder that it lies in",
        "cat/broken.png": "cannot be read: No such file or directory",
    }


def test_a_path_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        found(tmp_path / "missing", TASK)
    with pytest.raises(DataError, match="neither a file nor a folder"):
        found(Path(os.devnull), TASK)
    with pytest.raises(DataError, match=r"expected image data: .* it is empty"):
        found(tmp_path, TASK)
    (tmp_path / "notes.docx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"it has notes\.docx"):
        found(tmp_path, TASK)


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    iterdir = Path.iterdir

    def refuse(path: Path) -> Any:
        if path.name == "dog":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    def closed(path: Path, *_: object) -> bool:
        if path.parent.name == "dog":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", closed)
    monkeypatch.setattr(Path, "iterdir", refuse)
    samples, skipped = found(tmp_path, TASK)
    assert len(samples) == 1
    assert skipped == {"dog": "cannot be read: Permission denied"}
    with pytest.raises(DataError, match="Permission denied"):
        found(tmp_path / "dog", TASK)


def test_a_name_that_is_no_text_can_be_shown(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "a.png")
    strange = tmp_path / "cat" / os.fsdecode(b"\xff.png")
    (tmp_path / "cat" / "a.png").rename(strange)
    (sample,), _ = found(tmp_path, TASK)
    assert sample.name == "cat/\\udcff.png"
    assert sample.value().shape == (4, 6, 3)


def test_letters_in_another_form_are_the_same_class() -> None:
    task = ImageTask(classes=("Ma\u0308use", "x"), size=(4, 4))
    assert class_word("M\u00e4use", task) == "Ma\u0308use"
