"""Reading texts: ``NAME.jsonl`` or ``NAME.jsonl.gz``, one JSON object a line.

Fields of a line
----------------
text
    A string.
label
    The name of a class, or in every line an integer. Names are numbered in the order
    they sort in; integers of a file are 0 to K-1, all of them.
group, optional
    A string or an integer: whose text it is (an author, a shop, a domain). Partition
    ``natural`` makes the groups the clients.
split, optional
    ``"train"`` or ``"test"``. Without it a fifth of the lines, by label and by a fixed
    seed, is the test set; copies of a text are never on both sides.

An optional field is in every line or in none. Other fields and blank lines are passed
over.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from common.data.copies import copies
from common.data.dataset import LONGEST_NAME, Dataset, Labels, Samples
from common.data.inflate import check_inflated, most_bytes
from common.data.splits import held_out_split, stratified_subset
from common.data.tokens import Tokeniser
from common.errors import DataError

EXPECTED = 'an object such as {"text": "...", "label": 0}'
SPLITS = ("train", "test")
TEST_SHARE = 0.2


def _is_label(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST_NAME
    return type(value) is int and value >= 0  # True is an int, but no label


FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "text": (lambda value: isinstance(value, str), "a string"),
    "label": (
        _is_label,
        f"an integer from 0 or a name of at most {LONGEST_NAME} letters",
    ),
    "group": (
        lambda value: value is None or type(value) in (int, str),
        "a string or an integer",
    ),
    "split": (lambda value: value in (None, *SPLITS), '"train" or "test"'),
}

LONGEST = 2**24
"""Bytes of one line, at most."""


@dataclass(frozen=True, kw_only=True)
class _Line:
    number: int
    text: str
    label: int | str
    group: str | None
    split: str | None


def read_jsonl(path: Path, tokeniser: Tokeniser) -> Dataset:
    """Read and check one file and turn its texts into token ids.

    Parameters
    ----------
    tokeniser : Tokeniser
        Makes the samples, shape (N, length).

    Raises
    ------
    DataError
        Naming the file, the line and what is expected of it.
    """
    lines = list(_lines(path))
    if not lines:
        raise DataError(f"{path} is empty; expected {EXPECTED} in every line")
    for field in ("group", "split"):
        _check_in_all_or_none(path, lines, field)
    labels, classes, names = _labels(path, lines)
    x = tokeniser.encode(line.text for line in lines)
    test = _test_rows(path, lines, labels, x)
    train = np.setdiff1d(np.arange(len(lines)), test)
    owners = _owners(lines)
    return Dataset(
        name=path.name,
        x_train=x[train],
        y_train=labels[train],
        x_test=x[test],
        y_test=labels[test],
        num_classes=classes,
        class_names=names,
        input_shape=(tokeniser.length,),
        vocabulary=tokeniser.vocabulary,
        owner_train=None if owners is None else owners[train],
    )


def _lines(path: Path) -> Iterator[_Line]:
    number, read, most = 0, 0, most_bytes(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            # A piece at a time: a line, too, may be as long as memory is large.
            while data := file.readline(LONGEST):
                number, read = number + 1, read + len(data)
                check_inflated(path, read, most)
                if len(data) == LONGEST:
                    raise DataError(
                        f"{path}, line {number}: longer than {LONGEST >> 20} MiB"
                    )
                if data.strip():
                    yield _line(path, number, data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}, line {number + 1}: cannot be read ({error})"
        ) from error


def _line(path: Path, number: int, data: bytes) -> _Line:
    def bad(reason: str) -> NoReturn:
        raise DataError(f"{path}, line {number}: {reason}")

    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        bad(f"not JSON ({error}); expected {EXPECTED}")
    if not isinstance(found, dict):
        bad(f"expected {EXPECTED}, got {_shown(found)}")
    for field, (fits, expected) in FIELDS.items():
        value = found.get(field)
        if field in ("text", "label") and field not in found:
            bad(f"field {field!r} is missing; expected {EXPECTED}")
        if not fits(value):
            bad(f"field {field!r}: expected {expected}, got {_shown(value)}")
    group = found.get("group")
    return _Line(
        number=number,
        text=found["text"],
        label=found["label"],
        group=None if group is None else str(group),
        split=found.get("split"),
    )


def _check_in_all_or_none(path: Path, lines: list[_Line], field: str) -> None:
    has = next((line for line in lines if getattr(line, field) is not None), None)
    lacks = next((line for line in lines if getattr(line, field) is None), None)
    if has and lacks:
        raise DataError(
            f"{path}, line {lacks.number}: field {field!r} is missing; expected it in "
            f"every line or in none (line {has.number} has it)"
        )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _labels(path: Path, lines: list[_Line]) -> tuple[Labels, int, tuple[str, ...]]:
    """Return the number of every line's class, how many there are, and their names."""
    kind = type(lines[0].label)
    line_of: dict[Any, int] = {}
    for line in lines:
        if type(line.label) is not kind:
            expected = "an integer" if kind is int else "a name"
            raise DataError(
                f"{path}, line {line.number}: field 'label': expected {expected}, as "
                f"in line {lines[0].number}, got {_shown(line.label)}"
            )
        line_of.setdefault(line.label, line.number)
    labels = sorted(line_of)
    if kind is int:
        labels = [*range(_num_classes(path, line_of))]
    number_of = {label: number for number, label in enumerate(labels)}
    y = np.array([number_of[line.label] for line in lines], dtype=np.int64)
    return y, len(labels), () if kind is int else tuple(labels)


def _num_classes(path: Path, line_of: dict[int, int]) -> int:
    largest = max(line_of)
    where = f"{path}, line {line_of[largest]}: label {largest}"
    # A gap is a label that was cut from the file, or numbers that are no classes.
    gap = next((k for k in range(largest) if k not in line_of), None)
    if gap is not None:
        raise DataError(
            f"{where}, but no line has label {gap}; expected the labels 0 to K-1, all "
            "of them"
        )
    return largest + 1


def _test_rows(
    path: Path, lines: list[_Line], labels: Labels, x: Samples
) -> NDArray[np.int64]:
    if lines[0].split is None:
        size = round(TEST_SHARE * len(lines))
        if not 0 < size < len(lines):
            raise DataError(
                f"{path} has {len(lines)} line(s), too few to cut off a test set; "
                "expected more, or a field 'split'"
            )
        rng, units = np.random.default_rng(0), copies(x)
        if units is None:
            return stratified_subset(labels, size, rng)
        # Copies of a text stay together; one without copies is a unit of its own.
        own = np.where(units >= 0, units, len(units) + np.arange(len(units)))
        return held_out_split(labels, TEST_SHARE, rng, own)[1]
    for split in SPLITS:
        if not any(line.split == split for line in lines):
            raise DataError(f'{path}: no line has "split": "{split}"')
    return np.flatnonzero([line.split == "test" for line in lines])


def _owners(lines: list[_Line]) -> Labels | None:
    """Return the groups, numbered in the order of their names."""
    groups = [line.group for line in lines if line.group is not None]
    number = {name: k for k, name in enumerate(sorted(set(groups)))}
    if not groups:
        return None
    return np.array([number[group] for group in groups], dtype=np.int64)
