"""What a task may say, how a mistake in it is told, and that it survives its ways."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data import Dataset, Normaliser, load_dataset
from common.errors import SettingsError
from common.task import (
    Fixed,
    ImageTask,
    Moments,
    SeriesTask,
    TableTask,
    Task,
    TextTask,
    parse_task,
    read_task,
    task_from_json,
)
from common.task.known import task_of

IMAGE: dict[str, Any] = {"kind": "image", "classes": ["a", "b"], "size": [4, 6]}
TABLE: dict[str, Any] = {
    "kind": "table",
    "classes": ["a", "b"],
    "columns": ["x", {"name": "mode", "values": ["on", "off"]}],
}
SERIES: dict[str, Any] = {
    "kind": "series",
    "classes": ["a", "b"],
    "channels": ["ax", "ay"],
    "length": 8,
}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "kind = None is not allowed: choose from image, series, table, text"),
        ({"kind": "imagge"}, "did you mean 'image'?"),
        ({**IMAGE, "sise": [4, 4]}, r"unknown key 'sise': .*did you mean 'size'"),
        ({"kind": "image", "classes": ["a", "b"]}, "size is missing"),
        ({**IMAGE, "classes": ["a", "a"]}, r"classes = .*'a' is there twice"),
        ({**IMAGE, "classes": ["a", " a "]}, r"classes = .*'a' is there twice"),
        ({**IMAGE, "classes": ["\xe9", "e\u0301"]}, "'\xe9' is there twice"),
        ({**IMAGE, "classes": ["a", " "]}, "classes = .*a name is empty"),
        ({**IMAGE, "classes": ["a"]}, "classes = "),
        (
            {"kind": "table", "classes": ["a", "b"], "colums": ["x"]},
            r"unknown key 'colums': .*did you mean 'columns'",
        ),
        ({**IMAGE, "size": [0, 4]}, r"size\.0 = 0 is not allowed"),
        ({**IMAGE, "channels": 7}, "channels = 7 is not allowed"),
        ({**IMAGE, "held-out": 1.0}, r"held-out = 1\.0 is not allowed"),
        ({**IMAGE, "scale": "flet"}, "scale = 'flet' is not allowed"),
        ({**IMAGE, "scale": {"mean": [0], "std": [0]}}, "every std is above 0"),
        (
            {**IMAGE, "scale": {"mean": [0, 1], "std": [1]}},
            r"scale\.mean has 2 numbers: expected one per channel, 3, or one for all",
        ),
        ({**TABLE, "columns": ["x", "x"]}, "'x' is there twice"),
        ({**TABLE, "columns": []}, "columns = "),
        ({**SERIES, "length": 1}, "length = 1 is not allowed"),
        ({**SERIES, "channels": 4096, "length": 2**20}, "has more than"),
    ],
)
def test_a_mistake_is_one_line_with_key_and_value(
    fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        parse_task(fields, "task.toml")
    assert str(caught.value).startswith("task.toml: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"task = '.*no\.toml' cannot be read"):
        read_task(tmp_path / "no.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("kind = image")
    with pytest.raises(SettingsError, match=r"bad\.toml is not TOML"):
        read_task(bad)
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"bad\.toml is not TOML"):
        read_task(bad)


def test_shapes_and_names_of_each_kind() -> None:
    image, table, series = map(parse_task, (IMAGE, TABLE, SERIES))
    assert image.input_shape == (3, 4, 6)
    assert table.input_shape == (3,)
    assert table.channel_names == ("x", "mode=on", "mode=off")
    assert table.plain_channels == (False, True, True)
    assert series.input_shape == (2, 8)
    text = parse_task({"kind": "text", "classes": ["a", "b"]})
    assert text.input_shape == (64,) and text.model_kind == "int64"


numbers = st.floats(-1e6, 1e6, width=32)


@given(
    task=st.sampled_from([IMAGE, TABLE, SERIES]),
    mean=numbers,
    std=st.floats(2**-10, 2**20, width=32),
    held_out=st.floats(0.01, 0.99),
    words=st.lists(
        st.text("aé日 _-").filter(str.strip), min_size=2, unique_by=str.strip
    ),
)
def test_it_comes_back_from_json_bit_for_bit(
    task: dict[str, Any], mean: float, std: float, held_out: float, words: list[str]
) -> None:
    scale = {"mean": [mean], "std": [std]}
    made = parse_task({**task, "scale": scale, "held-out": held_out, "classes": words})
    again = task_from_json(made.to_json())
    assert again == made and again.digest == made.digest
    assert [again.number_of[word] for word in words] == list(range(len(words)))


def test_the_digest_is_of_all_but_the_scale() -> None:
    task = parse_task(TABLE)
    moments = Moments.of(np.array([[1.0, 3.0], [0.0, 1.0], [1.0, 0.0]]))
    scaled = task.scaled_by(moments)
    assert scaled.scale == Fixed(mean=(2.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert scaled.digest == task.digest
    assert scaled.scaled_by(Moments.of(np.zeros((3, 2)))) == scaled  # fixed once
    others: list[dict[str, Any]] = [
        {**TABLE, "classes": ["b", "a"]},
        {**TABLE, "held-out": 0.3},
        {**TABLE, "columns": ["x", {"name": "mode", "values": ["off", "on"]}]},
    ]
    assert task.digest not in {parse_task(other).digest for other in others}


def test_classes_that_are_changed_have_numbers_of_their_own() -> None:
    task = parse_task(IMAGE)
    assert task.number_of == {"a": 0, "b": 1}
    assert task.model_copy(update={"classes": ("b", "a")}).number_of["b"] == 0


@pytest.mark.parametrize(
    ("shape", "vocabulary", "kind"),
    [
        ((3, 8, 8), 0, ImageTask),
        ((2, 16), 0, SeriesTask),
        ((5,), 0, TableTask),
        ((12,), 100, TextTask),
    ],
)
def test_a_shared_set_has_a_task_of_the_same_arithmetic(
    shape: tuple[int, ...], vocabulary: int, kind: type[Task]
) -> None:
    rng = np.random.default_rng(0)
    channels = shape[0]
    x = rng.uniform(0, 255, (6, *shape)).astype(np.float32)
    if vocabulary:
        x = rng.integers(0, vocabulary, (6, *shape)).astype(np.uint8)
    y = np.arange(6) % 3
    plain = Normaliser(
        scale=255.0,
        mean=tuple(float(np.float32(m)) for m in rng.uniform(0, 1, channels)),
        std=tuple(float(np.float32(s)) for s in rng.uniform(0.1, 1, channels)),
    )
    dataset = Dataset(
        name="set",
        x_train=x,
        y_train=y,
        x_test=x,
        y_test=y,
        num_classes=3,
        input_shape=shape,
        normaliser=Normaliser() if vocabulary else plain,
        vocabulary=vocabulary,
    )
    task = task_of(dataset)
    assert isinstance(task, kind)
    assert task.input_shape == shape and task.classes == ("0", "1", "2")
    if not vocabulary:
        again = task_from_json(task.to_json()).normaliser.apply(x, shape)
        np.testing.assert_array_equal(again, dataset.normalise(x))


def test_digits_are_pictures_of_sixteen_greys() -> None:
    task = task_of(load_dataset("digits", "."))
    assert isinstance(task, ImageTask)
    assert (task.bright, task.size, task.channels) == (16.0, (8, 8), 1)


def test_editors_of_windows_put_a_mark_before_it(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    text = 'kind = "image"\r\nclasses = ["a", "b"]\r\nsize = [4, 6]\r\n'
    path.write_bytes(text.encode("utf-8-sig"))
    assert read_task(path) == parse_task(IMAGE)
