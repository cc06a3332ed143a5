"""Rows of CSV, Parquet and jsonl files as samples of tables and texts."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import DataError
from common.task import TableTask, TextTask, parse_task
from tests.common.own.finding import found, labels, write

TASK = TableTask(
    classes=("ok", "worn"),
    columns=({"name": "temp"}, {"name": "mode", "values": ["a", "b"]}),
    group_column="machine",
)
TEXT = TextTask(classes=("good", "bad"), length=6, vocabulary=64)


def test_a_row_becomes_numbers_and_ones_and_zeros(tmp_path: Path) -> None:
    path = write(
        tmp_path / "site.csv",
        "machine,temp,note,mode,label",
        "m1,20.5,x,b,ok",
        "m1,,x,,worn",
        "m2,-3e1,x,c, worn ",
    )
    samples, skipped = found(path, TASK)
    assert not skipped
    assert [(s.name, s.label, s.group) for s in samples] == [
        ("site.csv#2", "ok", "m1"),
        ("site.csv#3", "worn", "m1"),
        ("site.csv#4", "worn", "m2"),
    ]
    x = np.stack([s.value() for s in samples])
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, [[20.5, 0, 1], [np.nan, 0, 0], [-30, 0, 0]])
    assert [s.note for s in samples] == ["", "", "mode = 'c' is none of a, b"]


@pytest.mark.parametrize(
    ("separator", "number"),
    [(",", "20.5"), (";", "20,5"), ("\t", "20.5"), ("|", "20.5")],
)
def test_what_stands_between_columns_is_found(
    tmp_path: Path, separator: str, number: str
) -> None:
    rows = [["temp", "mode", "label", "machine"], [number, "a", "ok", "1"]]
    path = write(tmp_path / "a.csv", *map(separator.join, rows), encoding="utf-8-sig")
    (sample,), _ = found(path, TASK)
    assert sample.value().tolist() == [20.5, 1, 0]


def test_a_spreadsheet_may_say_what_stands_between_columns(tmp_path: Path) -> None:
    lines = ["sep=;", "machine;temp;mode;label", "1;2,5;a;ok"]
    samples, _ = found(write(tmp_path / "a.csv", *lines, encoding="utf-16"), TASK)
    assert [s.name for s in samples] == ["a.csv#3"]
    assert samples[0].value()[0] == 2.5


@pytest.mark.parametrize(
    ("row", "name", "reason"),
    [
        ("1,warm,a,ok", "a.csv#3", "temp: 'warm' is no number"),
        ("1,inf,a,ok", "a.csv#3", "temp: 'inf' is no number of 32 bits"),
        ("1,1e99,a,ok", "a.csv#3", "temp: '1e99' is no number of 32 bits"),
        ("1,1_0,a,ok", "a.csv#3", "temp: '1_0' is no number"),
        ('1,"1,5",a,ok', "a.csv#3", "put ; between columns"),
        ("1,2,a,", "a.csv#3", "label is empty"),
        ("1,2,a", "a.csv#3", "has 3 cells: expected 4"),
        ("1,2,a,ok,7", "a.csv#3", "has 5 cells: expected 4"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_the_rest_is_used(
    tmp_path: Path, row: str, name: str, reason: str
) -> None:
    header, good = "machine,temp,mode,label", "1,2,a,ok"
    samples, skipped = found(write(tmp_path / "a.csv", header, good, row, good), TASK)
    assert [s.name for s in samples] == ["a.csv#2", "a.csv#4"]
    assert [*skipped] == [name] and reason in skipped[name]


def test_rows_are_counted_by_the_lines_of_the_file(tmp_path: Path) -> None:
    task = TextTask(classes=("good", "bad"), length=6, vocabulary=64)
    path = write(
        tmp_path / "a.csv", "", "text,label", '"two', 'lines",good', "", "one,bad"
    )
    assert labels(path, task) == [("a.csv#3", "good"), ("a.csv#6", "bad")]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("machine,tmp,mode,label", "has no column 'temp' (it has machine, tmp, mode, "),
        ("Machine,temp,mode,LABEL", "no column 'machine', 'label' (it has Machine, "),
        ("1,20.5,a,ok", "; the first line must hold the names of the columns"),
        ("machine,temp,mode,lable", "did you mean 'lable'?"),
        ("temp,mode,label", "has no column 'machine'"),
        ("machine,temp,temp,mode,label", "has the column 'temp' twice"),
    ],
)
def test_a_column_that_is_missing_is_one_line(
    tmp_path: Path, header: str, message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as raised:
        found(write(tmp_path / "a.csv", header), TASK)
    assert "\n" not in str(raised.value)


def test_a_class_is_never_a_number_unless_it_is_called_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "machine,temp,mode,label", "1,2,a,0")
    with pytest.raises(DataError, match=r"a.csv#2: label = 0 is a number; .* ok, worn"):
        found(path, TASK)
    digits = TASK.model_copy(update={"classes": ("0", "1")})
    assert labels(path, digits) == [("a.csv#2", "0")]


def table(**columns: Any) -> pa.Table:
    return pa.table(columns)


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "machine": [1, 1, 2],
        "temp": pa.array([1.5, None, 3], pa.float32()),
        "mode": pa.array(["a", "b", None]).dictionary_encode(),
        "label": ["ok", "worn", None],
    }
    pq.write_table(table(**columns), path)
    samples, skipped = found(path, TASK)
    assert [(s.name, s.label, s.group) for s in samples] == [
        ("a.parquet#1", "ok", "1"),
        ("a.parquet#2", "worn", "1"),
    ]
    assert skipped == {"a.parquet#3": "label is empty"}
    x = np.stack([s.value() for s in samples])
    np.testing.assert_array_equal(x, [[1.5, 1, 0], [np.nan, 0, 1]])


def test_truth_is_one_and_zero_in_every_format(tmp_path: Path) -> None:
    task = TableTask(classes=("p", "q"), columns=("on", "n"))
    pq.write_table(
        table(on=[True, False], n=pa.array([1, None]), label=["p", "q"]),
        tmp_path / "a.parquet",
    )
    write(tmp_path / "b.csv", "on,n,label", "True,1,p", "FALSE,,q")
    write(
        tmp_path / "c.jsonl",
        '{"on": true, "n": 1, "label": "p"}',
        '{"on": false, "label": "q"}',
    )
    for name in ("a.parquet", "b.csv", "c.jsonl"):
        samples, skipped = found(tmp_path / name, task)
        assert not skipped
        x = np.stack([s.value() for s in samples])
        np.testing.assert_array_equal(x, [[1, 1], [0, np.nan]], err_msg=name)


def test_large_numbers_that_group_rows_stay_apart(tmp_path: Path) -> None:
    ids = [2**60, 2**60 + 1]
    columns = {"temp": [1.0, 2.0], "mode": ["a", "a"], "label": ["ok", "ok"]}
    pq.write_table(table(machine=ids, **columns), tmp_path / "a.parquet")
    samples, _ = found(tmp_path / "a.parquet", TASK)
    assert [s.group for s in samples] == [str(each) for each in ids]


def test_a_cell_in_another_encoding_costs_its_row_alone(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "text,label", "fine,good", "süß,good", encoding="latin-1"
    )
    samples, skipped = found(path, TEXT)
    assert [s.name for s in samples] == ["a.csv#2"]
    assert skipped == {"a.csv#3": "text is not in UTF-8: save the file in UTF-8"}


def test_without_labels_every_row_is_a_sample(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text", "fine", "awful")
    assert labels(path, TEXT, labelled=False) == [("a.csv#2", None), ("a.csv#3", None)]
    other = write(tmp_path / "b.csv", "text,label", "fine,strange", "awful,bad")
    assert [label for _, label in labels(other, TEXT, labelled=False)] == [None, "bad"]


def test_columns_without_names_are_all_but_the_class(tmp_path: Path) -> None:
    task = TableTask(classes=("0", "1"), columns=2)
    path = write(tmp_path / "a.csv", "u,label,v", "1,0,2")
    (sample,), _ = found(path, task)
    assert sample.value().tolist() == [1, 2]
    with pytest.raises(DataError, match="has 3 columns of values: expected 2"):
        found(write(tmp_path / "b.csv", "u,label,v,w", "1,0,2,3"), task)


def test_a_file_of_many_that_is_broken_is_passed_over(tmp_path: Path) -> None:
    good = write(tmp_path / "a.csv", "machine,temp,mode,label", "1,2,a,ok")
    (tmp_path / "b.csv").write_bytes(b"")
    write(tmp_path / "c.csv", "machine,mode,label", "1,a,ok")
    samples, skipped = found(tmp_path, TASK)
    assert [s.name for s in samples] == ["a.csv#2"]
    assert [*skipped] == ["b.csv", "c.csv"]
    good.unlink()
    with pytest.raises(DataError, match=r"b\.csv is empty"):
        found(tmp_path, TASK)


def test_the_column_of_classes_is_the_tasks(tmp_path: Path) -> None:
    task = parse_task(
        {
            "kind": "text",
            "classes": ["a", "b"],
            "label-column": "stars",
            "text-column": "review",
            "length": 6,
            "vocabulary": 64,
        }
    )
    path = write(tmp_path / "a.csv", "review,stars", "fine,a")
    assert labels(path, task) == [("a.csv#2", "a")]


def test_a_name_that_is_no_utf8_can_be_shown(tmp_path: Path) -> None:
    header = "machine,temp\u00b0,mode,label"
    path = write(tmp_path / "a.csv", header, "1,2,a,ok", encoding="latin-1")
    with pytest.raises(DataError, match="has no column 'temp'") as raised:
        found(path, TASK)
    assert str(raised.value).isascii()
    named = "machine,temp,mode,label"
    path = write(tmp_path / "b.csv", named, "M\u00fcll,2,a,ok", encoding="latin-1")
    (sample,), _ = found(path, TASK)
    assert sample.group == "M\\udcfcll"


NUMBERS = TableTask(classes=("ok", "worn"), columns=("u", "v"))


def test_a_point_beside_a_decimal_comma_is_no_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "u;v;label", "1.234;5,5;ok", "1234;5,5;ok")
    samples, skipped = found(path, NUMBERS)
    assert [s.value().tolist() for s in samples] == [[1234, 5.5]]
    both = "has numbers with a decimal comma and with a point: write all in one way"
    assert skipped == {"a.csv#2": both}
    path = write(tmp_path / "b.csv", "u;v;label", "1.234;5.5;ok", "1,5;2,5;ok")
    assert [s.value().tolist() for s in found(path, NUMBERS)[0]] == [
        [np.float32(1.234), 5.5],
        [1.5, 2.5],
    ]


def test_numbers_too_fine_for_32_bits_are_noted(tmp_path: Path) -> None:
    ms = [1_700_000_000_000 + k for k in range(8)]
    path = write(tmp_path / "a.csv", "u,v,label", *(f"{t},{t % 9},ok" for t in ms))
    samples, _ = found(path, NUMBERS)
    assert [s.note for s in samples[:2]] == [
        "u changes by too little for 32 bits: take a constant away from it",
        "",
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"PK\x03\x04rest", "it is packed, or a spreadsheet; save it as CSV"),
        ("u,v,label".encode("utf-16-le"), "it may be in UTF-16 or UTF-32; save it in"),
        ("u,v,label".encode("utf-32"), "it may be in UTF-16 or UTF-32; save it in"),
        ("u,v,label".encode("utf-32-be"), "it may be in UTF-16 or UTF-32; save it in"),
    ],
)
def test_a_file_that_is_no_text_says_so(
    tmp_path: Path, content: bytes, why: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"a.csv is no text file: {why}")):
        found(tmp_path / "a.csv", NUMBERS)


def test_a_remark_above_the_names_of_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "b.csv", "u", "1")
    with pytest.raises(DataError, match=r"'v', 'label' \(it has u\)$"):
        found(path, NUMBERS)
    path = write(tmp_path / "a.csv", "# logger 3", "u,v,label", "1,2,ok")
    with pytest.raises(DataError, match="; the first line must hold the names of the"):
        found(path, NUMBERS)
