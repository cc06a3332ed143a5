"""Reading texts: ``NAME.jsonl`` or ``NAME.jsonl.gz``, one JSON object a line.

Fields of a line
----------------
text
    A string.
label
    An integer; the labels of a file are 0 to K-1, all of them.
group, optional
    A string or an integer: whose text it is (an author, a shop, a domain). Partition
    ``natural`` makes the groups the clients.
split, optional
    ``"train"`` or ``"test"``. Without it a fifth of the lines, by label and by a fixed
    seed, is the test set.

An optional field is in every line or in none. Other fields and blank lines are passed
over.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import Dataset, Labels
from common.data.errors import DataError
from common.data.splits import stratified_subset
from common.data.tokens import Tokeniser

EXPECTED = 'an object such as {"text": "...", "label": 0}'
SPLITS = ("train", "test")
TEST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class _Line:
    number: int
    text: str
    label: int
    group: str | None
    split: str | None


def load_jsonl(
    name: str, path: Path, tokeniser: Tokeniser, *, num_classes: int | None = None
) -> Dataset:
    """Read and check one file and turn its texts into token ids.

    Parameters
    ----------
    tokeniser : Tokeniser
        Makes the samples, shape (N, length).
    num_classes : int, optional
        Classes the data set is known to have; otherwise the largest label plus one.

    Raises
    ------
    DataError
        Naming the file, the line and what is expected of it.
    """
    lines = list(_lines(path))
    if not lines:
        raise DataError(f"{path} is empty; expected {EXPECTED} in every line")
    labels = np.array([line.label for line in lines], dtype=np.int64)
    classes = _num_classes(path, lines, num_classes)
    x = tokeniser.encode(line.text for line in lines)
    test = _test_rows(path, lines, labels)
    train = np.setdiff1d(np.arange(len(lines)), test)
    owners, names = _owners(lines)
    return Dataset(
        name=name,
        x_train=x[train],
        y_train=labels[train],
        x_test=x[test],
        y_test=labels[test],
        num_classes=classes,
        input_shape=(tokeniser.length,),
        vocabulary=tokeniser.vocabulary,
        owner_train=None if owners is None else owners[train],
        owner_names=names,
    )


def _lines(path: Path) -> Iterator[_Line]:
    number, first = 0, None
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, data in enumerate(file, start=1):
                if not data.strip():
                    continue
                line = _line(path, number, data)
                first = first or line
                for field in ("group", "split"):
                    mine, theirs = getattr(line, field), getattr(first, field)
                    if (mine is None) != (theirs is None):
                        has, lacks = (first, line) if mine is None else (line, first)
                        raise DataError(
                            f"{path}, line {lacks.number}: field {field!r} is missing; "
                            f"expected it in every line or in none (line {has.number} "
                            "has it)"
                        )
                yield line
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
    for field in ("text", "label"):
        if field not in found:
            bad(f"field {field!r} is missing; expected {EXPECTED}")
    text, label = found["text"], found["label"]
    group, split = found.get("group"), found.get("split")
    if not isinstance(text, str):
        bad(f"field 'text': expected a string, got {_shown(text)}")
    if type(label) is not int or label < 0:  # True is an int, but no label
        bad(f"field 'label': expected an integer from 0, got {_shown(label)}")
    if group is not None and type(group) not in (int, str):
        bad(f"field 'group': expected a string or an integer, got {_shown(group)}")
    if split is not None and split not in SPLITS:
        bad(f'field \'split\': expected "train" or "test", got {_shown(split)}')
    return _Line(
        number=number,
        text=text,
        label=label,
        group=None if group is None else str(group),
        split=split,
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _num_classes(path: Path, lines: list[_Line], known: int | None) -> int:
    line_of = {line.label: line.number for line in reversed(lines)}
    largest = max(line_of)
    where = f"{path}, line {line_of[largest]}: label {largest}"
    if known is not None:
        if largest >= known:
            raise DataError(f"{where}; expected 0 to {known - 1}")
        return known
    # A gap is a label that was cut from the file, or numbers that are no classes.
    gap = next((k for k in range(largest) if k not in line_of), None)
    if gap is not None:
        raise DataError(
            f"{where}, but no line has label {gap}; expected the labels 0 to K-1, all "
            "of them"
        )
    return largest + 1


def _test_rows(path: Path, lines: list[_Line], labels: Labels) -> NDArray[np.int64]:
    if lines[0].split is None:
        size = round(TEST_SHARE * len(lines))
        if not 0 < size < len(lines):
            raise DataError(
                f"{path} has {len(lines)} line(s), too few to cut off a test set; "
                "expected more, or a field 'split'"
            )
        return stratified_subset(labels, size, np.random.default_rng(0))
    for split in SPLITS:
        if not any(line.split == split for line in lines):
            raise DataError(f'{path}: no line has "split": "{split}"')
    return np.flatnonzero([line.split == "test" for line in lines])


def _owners(lines: list[_Line]) -> tuple[Labels | None, tuple[str, ...]]:
    if lines[0].group is None:
        return None, ()
    names = sorted({line.group or "" for line in lines})
    number = {name: k for k, name in enumerate(names)}
    owners = [number[line.group or ""] for line in lines]
    return np.array(owners, dtype=np.int64), tuple(names)
