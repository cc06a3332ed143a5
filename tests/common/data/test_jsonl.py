"""Files of texts: what they become, and one line that says what is wrong with them."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import (
    HashedPieces,
    client_partition,
    inflate,
    jsonl,
    load_client_data,
    load_dataset,
    parse_partition,
)
from common.errors import DataError, SettingsError
from common.settings import Settings
from common.shape import dataset_of, model_spec
from common.task.known import task_of

GOOD = [
    {"text": "bad", "label": 0, "group": "b", "split": "train"},
    {"text": "good", "label": 1, "group": "a", "split": "train", "stars": 5},
    {"text": "so so", "label": 2, "group": "b", "split": "test"},
]


def write(path: Path, *lines: Any) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def refused(folder: Path, *lines: Any, name: str = "mine") -> str:
    path = write(folder / f"{name}.jsonl", *lines)
    with pytest.raises(DataError) as error:
        load_dataset(name, folder)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(str(path))


def changed(**fields: Any) -> dict[str, Any]:
    """Return the first good line with other fields; None leaves one out."""
    return {k: v for k, v in (GOOD[0] | fields).items() if v is not None}


def without(*fields: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in fields} for line in GOOD]


def test_fields_become_samples_labels_owners_and_sides(tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", *GOOD)
    tokeniser = HashedPieces(length=3, vocabulary=1000)
    mine = load_dataset("mine", tmp_path, tokeniser)
    assert np.array_equal(mine.x_train, tokeniser.encode(["bad", "good"]))
    assert np.array_equal(mine.x_test, tokeniser.encode(["so so"]))
    assert (mine.y_train.tolist(), mine.y_test.tolist()) == ([0, 1], [2])
    assert mine.owner_train is not None
    assert mine.owner_train.tolist() == [1, 0]  # b and a, by name
    assert (mine.num_classes, mine.input_shape, mine.vocabulary) == (3, (3,), 1000)
    x = mine.normalise(mine.x_train)
    assert x.dtype == np.int64 and np.array_equal(x, mine.x_train)
    with pytest.raises(match="do not fit"):
        mine.normalise(mine.x_train[:, :2])


def test_names_of_classes_are_numbered_in_the_order_they_sort_in(
    tmp_path: Path,
) -> None:
    labels = ["so so", "bad", "good", "bad"]
    splits = ["train", "train", "test", "test"]
    lines = [
        {"text": "t", "label": n, "split": s}
        for n, s in zip(labels, splits, strict=True)
    ]
    write(tmp_path / "mine.jsonl", *lines)
    mine = load_dataset("mine", tmp_path)
    assert mine.class_names == ("bad", "good", "so so")
    assert (mine.y_train.tolist(), mine.y_test.tolist()) == ([2, 0], [1, 0])
    assert task_of(mine).classes == ("bad", "good", "so so")
    said = refused(tmp_path, *lines, {**lines[0], "label": 1}, name="mixed")
    assert said == ", line 5: field 'label': expected a name, as in line 1, got 1"
    write(tmp_path / "sent140.jsonl", *lines)
    assert load_dataset("sent140", tmp_path).class_names == mine.class_names


def test_one_class_is_none(tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", *({"text": "t", "label": "a"} for _ in range(9)))
    with pytest.raises(DataError, match="'mine' has one class: expected 2 or more"):
        task_of(load_dataset("mine", tmp_path))


def test_compressed_is_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", "", *GOOD, " ")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    a, b = load_dataset("a", tmp_path), load_dataset("b", tmp_path)
    assert np.array_equal(a.x_train, b.x_train)


def test_another_tokeniser_is_another_data_set(tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", *GOOD)
    assert load_dataset("mine", tmp_path) is load_dataset("mine", tmp_path)
    short = load_dataset("mine", tmp_path, HashedPieces(length=5))
    assert short.x_train.shape == (2, 5)


def test_without_split_a_fifth_is_the_test_set(tmp_path: Path) -> None:
    lines = [{"text": f"t{i}", "label": i % 2} for i in range(50)]
    write(tmp_path / "mine.jsonl", *lines)
    mine = load_dataset("mine", tmp_path)
    assert np.bincount(mine.y_test).tolist() == [5, 5]
    assert len(mine.y_train) == 40
    assert mine.owner_train is None
    assert "2 line(s), too few to cut off" in refused(tmp_path, *lines[:2], name="two")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", ", line 4: not JSON"),
        ("\xff\ud800", ", line 4: not JSON"),
        ("[" * 100_000, ", line 4: not JSON"),
        ("[1]", ', line 4: expected an object such as {"text": "...", "label": 0}'),
        (changed(text=None), ", line 4: field 'text' is missing"),
        (changed(label=None), ", line 4: field 'label' is missing"),
        (changed(text=3), ", line 4: field 'text': expected a string, got 3"),
        (changed(label=1.0), ", line 4: field 'label': expected an integer from 0"),
        (changed(label=True), "at most 100 letters, got true"),
        (
            changed(label="1"),
            """'label': expected an integer, as in line 1, got "1\"""",
        ),
        (
            changed(label=""),
            "expected an integer from 0 or a name of at most 100 letters",
        ),
        (changed(label=-1), "at most 100 letters, got -1"),
        (changed(label=4), "line 4: label 4, but no line has label 3; expected the"),
        (changed(group=1.5), "'group': expected a string or an integer, got 1.5"),
        (changed(split="dev"), '\'split\': expected "train" or "test", got "dev"'),
        (changed(group=None), ", line 4: field 'group' is missing; expected it in"),
        (changed(split=None), ", line 4: field 'split' is missing; expected it in"),
    ],
)
def test_bad_line(tmp_path: Path, line: Any, says: str) -> None:
    if isinstance(line, str):
        path = tmp_path / "mine.jsonl"
        good = "\n".join(map(json.dumps, GOOD))
        path.write_bytes(f"{good}\n{line}".encode("utf-8", "surrogatepass"))
        with pytest.raises(DataError) as error:
            load_dataset("mine", tmp_path)
        assert says in str(error.value)
        return
    assert says in refused(tmp_path, *GOOD, line)


def test_bad_file(tmp_path: Path) -> None:
    assert " is empty; expected" in refused(tmp_path, "")
    first = without("group")[0]
    assert ", line 1: field 'group' is missing" in refused(tmp_path, first, GOOD[1])
    assert ': no line has "split": "test"' in refused(tmp_path, *GOOD[:2])
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD[0]).encode() * 500)[:-30])
    with pytest.raises(match=r"cut\.jsonl\.gz, line 1: cannot be read"):
        load_dataset("cut", tmp_path)


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflate, "ALWAYS", 2**20)
    lines = b'{"text": "%s", "label": 0}\n' % (b"a" * 4000)
    bomb = tmp_path / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress(lines * 5000))
    read: list[int] = []

    def check(path: Path, nbytes: int, most: int) -> None:
        read.append(nbytes)
        inflate.check_inflated(path, nbytes, most)

    monkeypatch.setattr(jsonl, "check_inflated", check)
    assert bomb.stat().st_size * inflate.RATIO < 5000 * len(lines)
    with pytest.raises(match=r"bomb\.jsonl\.gz unpacks to more than"):
        load_dataset("bomb", tmp_path)
    assert max(read) < 2 * inflate.most_bytes(bomb)


def test_a_line_without_an_end_is_not_read_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "LONGEST", 1000)
    path = tmp_path / "long.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 10**6))
    with pytest.raises(match=r"long\.jsonl\.gz, line 1: longer than"):
        load_dataset("long", tmp_path)


def test_texts_of_a_known_name_are_not_downloaded_and_may_be_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(match=r"put reviews\.jsonl or reviews\.jsonl\.gz"):
        load_dataset("reviews", tmp_path)
    write(tmp_path / "sent140.jsonl", *GOOD)
    with caplog.at_level("INFO"):
        assert load_dataset("sent140", tmp_path).num_classes == 3
    assert "sent140.jsonl is not the known set sent140" in caplog.text


def test_natural_clients_with_all_other_cuts(tmp_path: Path) -> None:
    lines = [
        {"text": f"w{i}", "label": i % 2, "group": i % 3, "split": "train"}
        for i in range(120)
    ]
    write(tmp_path / "mine.jsonl", *lines, {**lines[0], "split": "test"})
    mine = load_dataset("mine", tmp_path)
    spec = parse_partition("natural")
    parts = client_partition(mine, spec, 3, 0, reserved=12, train_samples=90)
    assert sum(map(len, parts)) == 90
    assert mine.owner_train is not None
    assert [set(mine.owner_train[p].tolist()) for p in parts] == [{0}, {1}, {2}]
    data = load_client_data(mine, spec, 1, 3, 0, held_out=0.25, moved=0.5)
    # Half of its 30 and 10 have gone on, and as many have come.
    assert (len(data.y_train), len(data.y_held_out)) == (30, 10)
    assert data.normalise(data.x_train).dtype == np.int64


def test_settings_that_do_not_fit_the_data(tmp_path: Path) -> None:
    def settings(**run_config: Any) -> Settings:
        keys = {name.replace("_", "-"): value for name, value in run_config.items()}
        return Settings.from_run_config({"data-dir": str(tmp_path)} | keys)

    write(tmp_path / "mine.jsonl", *without("group"))
    for name in ("mine", "digits"):
        with pytest.raises(SettingsError, match=f"dataset = '{name}' .* field 'group'"):
            dataset_of(settings(dataset=name, partition="natural"))
    short = settings(dataset="mine", text_length=7, vocabulary=50)
    dataset = dataset_of(short)
    assert (dataset.input_shape, dataset.vocabulary) == ((7,), 50)
    with pytest.raises(SettingsError, match="backbone = 'mlp' is not allowed with"):
        model_spec(short, dataset)


def test_copies_of_a_text_are_on_one_side_of_the_test_cut(tmp_path: Path) -> None:
    lines = [
        {"text": f"number{i % 40} of them", "label": i % 40 % 2} for i in range(400)
    ]
    write(tmp_path / "mine.jsonl", *lines, {"text": "alone", "label": 1})
    data = load_dataset("mine", tmp_path)
    train, test = ({*map(bytes, x)} for x in (data.x_train, data.x_test))
    assert not train & test and len(train | test) == 41
    assert len(data.x_test) == 80
