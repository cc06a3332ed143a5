"""Whatever lies there: a reader finds samples or says why not, in one line."""

import gzip
import io
import shutil
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.errors import DataError
from common.own.found import Found
from common.own.reading import find_samples
from common.task import ImageTask, SeriesTask, TableTask, Task, TextTask
from tests.common.own.finding import TOKENS

CLASSES = ("a", "b")
TASKS: dict[str, Task] = {
    "image": ImageTask(classes=CLASSES, size=(3, 3)),
    "series": SeriesTask(classes=CLASSES, channels=("u",), length=2),
    "table": TableTask(classes=CLASSES, columns=("u",)),
    "text": TextTask(classes=CLASSES, length=6, vocabulary=64),
}
ROWS = b"u,text,label\n1,x,a\n2,y,b\n"
LINES = b'{"u": 1, "text": "x", "label": "a"}\n{"u": 2, "text": "y", "label": "b"}\n'


def made(write: Any) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def sound(file: io.BytesIO) -> None:
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 50, 0, "NONE", ""))
        out.writeframes(bytes(8))


def files() -> dict[str, bytes]:
    noise = Image.effect_noise((9, 9), 50)
    rows = pa.table({"u": [1.0, 2.0], "text": ["x", "y"], "label": ["a", "b"]})
    kinds = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF", ".tif": "TIFF"}
    return {
        **{
            ending: made(lambda file, kind=kind: noise.save(file, kind))
            for ending, kind in kinds.items()
        },
        ".csv": ROWS,
        ".csv.gz": gzip.compress(ROWS),
        ".jsonl": LINES,
        ".jsonl.gz": gzip.compress(LINES),
        ".parquet": made(lambda file: pq.write_table(rows, file)),
        ".npz": made(lambda file: np.savez(file, x=np.ones((2, 1, 2)), y=[0, 1])),
        ".txt": b"hello",
        ".wav": made(sound),
    }


FILES = files()
PICTURES = (".png", ".jpg", ".gif", ".tif")
ROW_FILES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
READ = {
    "image": (*PICTURES, ".npz"),
    "table": ROW_FILES,
    "series": (".csv", ".npz", ".wav"),
    "text": (*ROW_FILES, ".txt"),
}


@pytest.mark.parametrize(
    ("kind", "ending"), [(k, e) for k, endings in READ.items() for e in endings]
)
@given(data=st.data())
def test_a_file_with_some_bytes_changed(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    ending: str,
    data: st.DataObject,
) -> None:
    content = bytearray(FILES[ending])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    folder = tmp_path_factory.mktemp("any")
    path = folder / "a" / f"one{ending}"
    path.parent.mkdir()
    path.write_bytes(content[:cut] if data.draw(st.booleans()) else content)
    for place, labelled in ((folder, True), (path, False)):
        try:
            every = list(find_samples(place, TASKS[kind], TOKENS, labelled=labelled))
        except DataError as error:
            assert "\n" not in str(error)
            continue
        for each in every:
            if isinstance(each, Found):
                try:
                    assert each.value().shape
                except DataError as error:
                    assert "\n" not in str(error)
            else:
                assert "\n" not in each.reason
    shutil.rmtree(folder)


def test_every_format_is_read_where_it_is_whole(tmp_path: Path) -> None:
    for kind, endings in READ.items():
        for ending in endings:
            folder = tmp_path / kind / ending
            (folder / "a").mkdir(parents=True)
            (folder / "a" / f"one{ending}").write_bytes(FILES[ending])
            if (kind, ending) in {("image", ".npz"), ("series", ".csv")}:
                continue  # of another shape; one class a row
            every = list(find_samples(folder, TASKS[kind], TOKENS))
            assert every, (kind, ending)
            for each in every:
                assert isinstance(each, Found), each
                assert each.value().shape
