"""Where answers go, and how many were right."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from common.serving.answers import Omitted, Score, written
from common.serving.samples import Batch
from common.serving.servable import Predictions
from common.task import TableTask

TASK = TableTask(classes=("ok", 'crack, "fine"', "rust"), columns=2, scale="none")


def batch(names: list[str], labels: list[str | int | None] | None = None) -> Batch:
    return Batch(
        names=names, x=np.zeros((len(names), 2)), labels=labels or [None] * len(names)
    )


def answered(*classes: int, experts: tuple[int, ...] = ()) -> Predictions:
    """The likeliest class gets 0.75."""
    probabilities = np.full((len(classes), 3), 0.125, dtype=np.float32)
    probabilities[np.arange(len(classes)), classes] = 0.75
    return Predictions(
        probabilities,
        np.array(classes, dtype=np.int64),
        np.array(experts or [-1] * len(classes), dtype=np.int64),
    )


PARTS = [
    (batch(["a.png", "größe\x1b.png"]), answered(1, 0, experts=(4, -1))),
    (batch(["c.png"]), answered(2, experts=(2,))),
]
ROWS = [
    ("a.png", 'crack, "fine"', 0.75, 4),
    ("größe\x1b.png", "ok", 0.75, -1),
    ("c.png", "rust", 0.75, 2),
]


def write(path: Path | None) -> None:
    with written(path, TASK) as take:
        for part in PARTS:
            take(*part)


def test_a_table_that_no_name_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    write(None)
    assert capsys.readouterr().out.splitlines() == [
        "sample              class  probability  expert",
        'a.png       crack, "fine"       0.7500       4',
        "größe?.png             ok       0.7500       -",
        "c.png                rust       0.7500       2",
    ]


def test_lines_of_csv_and_json(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["sample", "class", "probability", "expert"]
    assert [(n, c, float(p), int(e)) for n, c, p, e in rows] == ROWS
    write(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert [tuple(json.loads(line).values()) for line in lines] == ROWS
    assert [*json.loads(lines[0])] == head


def test_an_npz_with_all_probabilities_and_the_names_of_the_classes(
    tmp_path: Path,
) -> None:
    write(tmp_path / "deep" / "a.npz")
    with np.load(tmp_path / "deep" / "a.npz") as found:
        assert list(found["names"]) == [name for name, *_ in ROWS]
        assert list(found["class_names"]) == list(TASK.classes)
        assert found["classes"].tolist() == [1, 0, 2]
        assert found["experts"].tolist() == [4, -1, 2]
        assert found["probabilities"].shape == (3, 3)


@pytest.mark.parametrize("name", ["a.csv", "a.npz"])
def test_what_was_interrupted_leaves_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), written(tmp_path / name, TASK) as take:
        take(*PARTS[0])
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_the_score_of_those_whose_class_is_known() -> None:
    score = Score(TASK)
    assert not [*score.lines()]
    score.add(batch(["a", "b", "c"], ["ok", "ok", None]), answered(0, 1, 2))
    score.add(batch(["d", "e", "f"], [2, "dog", 7]), answered(2, 2, 2))
    assert [*score.lines()] == [
        "accuracy 0.6667 of 3 samples whose class is known",
        "2 have a class that the model does not know",
        "recall: ok 0.5000 of 2, rust 1.0000 of 1",
    ]


def test_the_recalls_of_many_classes_are_one_number() -> None:
    task = TableTask(classes=tuple(map(str, range(30))), columns=2, scale="none")
    score = Score(task)
    labels: list[str | int | None] = [*range(30), 0]
    names = [str(n) for n in range(31)]
    score.add(batch(names, labels), answered(*[0] * 31)._replace())
    assert [*score.lines()] == [
        "accuracy 0.0645 of 31 samples whose class is known",
        "balanced accuracy 0.0333 over 30 classes",
    ]


def test_only_the_first_of_many_bad_files_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    omitted = Omitted()
    for number in range(50):
        omitted.add(f"{number}\n.png", "not an image")
    lines = capsys.readouterr().err.splitlines()
    assert omitted.count == 50
    assert lines[0] == "skipped 0?.png: not an image"
    assert len(lines) == Omitted.NAMED + 1
