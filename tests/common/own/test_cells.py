"""What a cell of a table says: a number, a class or nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.own.cells import label_of, numbers_of
from common.task import TableTask


@pytest.mark.parametrize("cell", ["1", 1, 1.0, "1.0", np.int64(1), True])
def test_a_number_may_be_the_name_of_a_class(cell: object) -> None:
    task = TableTask(classes=("0", "1"), columns=1)
    assert label_of(cell, task, "here") == "1"


def test_a_class_may_have_the_name_of_nothing() -> None:
    task = TableTask(classes=("none", "rust"), columns=1)
    assert label_of("none", task, "here") == "none"
    assert label_of("", task, "here") is None


def test_letters_of_one_kind_are_one_class() -> None:
    task = TableTask(classes=("M\u00fcll", "Glas"), columns=1)
    assert label_of("Mu\u0308ll", task, "here") == "M\u00fcll"


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_every_number_of_32_bits_survives_a_file(values: list[float]) -> None:
    read, bad = numbers_of([repr(value) for value in values], comma=False)
    assert not bad
    np.testing.assert_array_equal(read.astype(np.float32), np.array(values, np.float32))


@given(st.lists(st.text(max_size=8)))
def test_every_cell_is_a_number_a_gap_or_named(cells: list[str]) -> None:
    values, bad = numbers_of(cells, comma=True)
    assert len(values) == len(cells)
    assert all(0 <= row < len(cells) for row in bad)
