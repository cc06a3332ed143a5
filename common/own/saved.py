"""Folders that the package ``datasets`` of Hugging Face wrote by ``save_to_disk``.

They are mapped into memory, not read into it. Of a set with several parts, those that
``SPLITS`` calls so are for testing.

Not here: what the rows become (``tables``, ``recordings``).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.own.cells import Rows, RowSource
from common.own.columns import library, rows_of_arrow
from common.own.folders import SPLITS, TEST
from common.own.found import Skipped
from common.own.lines import BATCH
from common.text import reason


def is_saved(path: Path) -> bool:
    """Whether a folder is one of these."""
    try:
        one = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
        return one or (path / "dataset_dict.json").is_file()
    except OSError:  # a folder that may not be looked into
        return False


def open_saved(path: Path, name: str) -> Iterator[RowSource]:
    """Look at a folder; yield the rows of every part.

    Parameters
    ----------
    name : str
        What the folder is called in the names of its samples.

    Raises
    ------
    DataError
    """
    datasets = library("datasets", str(path))
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever a broken folder does
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    whole = not isinstance(found, dict)

    def is_image(feature: Any) -> bool:
        return isinstance(feature, datasets.Image)

    stamp = _stamp(path)
    for part, rows in ({"": found} if whole else found).items():
        plain = _without_decoding(rows, datasets)
        pictures = (n for n, f in plain.features.items() if is_image(f))
        yield RowSource(
            name=name if whole else f"{name}/{part}",
            stamp=stamp,
            columns=tuple(plain.column_names),
            read=partial(_read, plain),
            test=SPLITS.get(part.lower()) == TEST,
            images=next(pictures, ""),
            cell=partial(_cell, plain),
            size=len(plain),
        )


def _without_decoding(rows: Any, datasets: Any) -> Any:
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image | datasets.Audio):
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def _cell(rows: Any, row: int, column: str) -> Any:
    return rows[row][column]


def _stamp(path: Path) -> tuple[int, ...]:
    status = [each.stat() for each in sorted(path.rglob("*")) if each.is_file()]
    return (
        sum(each.st_size for each in status),
        max((each.st_mtime_ns for each in status), default=0),
    )


def _read(rows: Any, wanted: Sequence[str]) -> Iterator[Rows | Skipped]:
    """Yield rows of some columns; classes by their names."""
    chosen = rows.select_columns(list(wanted)).with_format("arrow")
    names = {
        name: feature.names
        for name, feature in chosen.features.items()
        if hasattr(feature, "int2str")
    }
    number = 1
    for batch in chosen.iter(batch_size=BATCH):
        part = rows_of_arrow(batch, number)
        number += len(part.numbers)
        cells = dict(part.cells)
        for name, words in names.items():
            cells[name] = [
                None if k is None or k < 0 else words[k] for k in cells[name]
            ]
        yield Rows(part.numbers, cells)
