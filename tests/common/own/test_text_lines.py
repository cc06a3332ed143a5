"""Lines of JSON, and files of text, as samples of tables and texts."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from common.task import TableTask, TextTask
from tests.common.own.finding import TOKENS, found, write

TEXT = TextTask(classes=("good", "bad"), length=6, vocabulary=64)
NUMBERS = TableTask(classes=("ok", "worn"), columns=("u", "v"))


@pytest.mark.parametrize("packed", [False, True])
def test_lines_of_json_are_texts(tmp_path: Path, packed: bool) -> None:
    lines = [
        json.dumps({"text": "fine", "label": "good"}),
        "",
        "{broken",
        "[1]",
        json.dumps({"text": "", "label": "bad"}),
        json.dumps({"text": "awful", "label": "bad", "split": "test"}),
    ]
    path = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    samples, skipped = found(path, TEXT)
    assert [(s.name, s.label, s.test) for s in samples] == [
        (f"{path.name}#1", "good", False),
        (f"{path.name}#6", "bad", True),
    ]
    assert [name.partition("#")[2] for name in skipped] == ["3", "4", "5"]
    for sample, text in zip(samples, ["fine", "awful"], strict=True):
        np.testing.assert_array_equal(sample.value(), TOKENS.encode([text])[0])


def test_a_text_file_is_a_sample(tmp_path: Path) -> None:
    write(tmp_path / "good" / "a.txt", "fine")
    write(tmp_path / "bad" / "b.txt", "süß", encoding="latin-1")
    write(tmp_path / "bad" / "c.txt", "süß", encoding="utf-16")
    samples, skipped = found(tmp_path, TEXT)
    assert not skipped
    assert [(s.name, s.label) for s in samples] == [
        ("bad/b.txt", "bad"),
        ("bad/c.txt", "bad"),
        ("good/a.txt", "good"),
    ]
    with pytest.raises(DataError, match="UTF-8"):
        samples[0].value()
    np.testing.assert_array_equal(samples[1].value(), TOKENS.encode(["süß"])[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.jsonl is empty: expected a JSON object in every line"),
        ('[{"text": "x"}]', "a.jsonl#1: .* expected a JSON object"),
        ("text,label", "a.jsonl#1: the line is no JSON of its own"),
    ],
)
def test_lines_that_are_no_objects(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        found(tmp_path, TEXT)


def test_json_lines_may_have_decimal_commas(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"u": "0,5", "v": "7", "label": "ok"}')
    assert [s.value().tolist() for s in found(path, NUMBERS)[0]] == [[0.5, 7]]


def test_a_list_is_no_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"text": ["good"], "label": "good"}',
        '{"text": 5, "label": "good"}',
    )
    samples, skipped = found(path, TEXT)
    assert [s.name for s in samples] == ["a.jsonl#2"]
    assert skipped == {"a.jsonl#1": "text holds ['good']: expected a text"}


def test_a_packed_file_may_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.data.inflate.ALWAYS", 1000)
    path = tmp_path / "a.jsonl.gz"
    line = json.dumps({"text": "a" * 1000, "label": "good"}) + "\n"
    path.write_bytes(gzip.compress(line.encode() * 1000))
    with pytest.raises(DataError, match="unpacks to more than"):
        found(path, TEXT)
