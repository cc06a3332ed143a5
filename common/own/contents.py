"""What lies at a path, and which of it is read: by the endings of the files' names.

Not here: what is inside a file (``reading`` and the readers of formats).
"""

import re
import stat
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import DataError, nearest
from common.own.array_files import NAMES
from common.own.folders import (
    SPLITS,
    TEST,
    TRAIN,
    Entry,
    class_of,
    entry_of,
    split_of,
    walk,
)
from common.own.found import Skipped
from common.own.images import image_endings
from common.own.saved import is_saved
from common.task import ImageTask, Task
from common.text import reason

ENDINGS = {
    **dict.fromkeys((".csv", ".tsv", ".csv.gz", ".tsv.gz"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **{".npz": "npz", ".npy": "npy", ".txt": "txt", ".wav": "wav"},
}
FORMATS: dict[str, tuple[str, ...]] = {
    "image": ("images", "parquet", "npz", "npy"),
    "series": ("wav", "csv", "jsonl", "parquet", "npz", "npy"),
    "table": ("csv", "jsonl", "parquet", "npz", "npy"),
    "text": ("txt", "csv", "jsonl", "parquet", "npz", "npy"),
}
"""What samples of every kind are read from; ``images`` have many endings."""

ONE_EACH = ("images", "txt", "wav")
"""Formats of one sample, or one recording, a file."""

_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is read.

    Attributes
    ----------
    format : str
        One of ``FORMATS``, or "saved": folders of the package ``datasets``.
    entries : list of Entry
        Files of this format, in the order of their names.
    lists : list of Entry
        Files that may say more about images.
    folders : list of Path
        Of "saved".
    skipped : list of Skipped
        What is not read, and why.
    test : set of str
        Names of files that are for testing.
    """

    format: str
    entries: list[Entry] = field(default_factory=list)
    lists: list[Entry] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    test: frozenset[str] = frozenset()


def contents_of(path: Path, task: Task) -> Contents:
    """Look at a file or a folder.

    Raises
    ------
    DataError
        If there is nothing that can be read, or it is not clear what is meant.
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
        inside = sorted(path.iterdir()) if is_folder else []
        saved = [path] if is_saved(path) else [p for p in inside if is_saved(p)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if saved:
        return Contents(format="saved", folders=saved)
    return _of_folder(path, task) if is_folder else _of_file(path, task)


def format_of(entry: Entry, task: Task) -> str:
    """Return the format of a file by its name; "" for none that is known."""
    name = entry.path.name.lower()
    ending = max((e for e in ENDINGS if name.endswith(e)), key=len, default="")
    if isinstance(task, ImageTask) and (
        not entry.ending or entry.ending in image_endings()
    ):
        return "images"
    return ENDINGS.get(ending, "")


def near_class(entry: Entry, task: Task) -> str | None:
    """Return the class whose folder a file lies in, if that nearly is a class."""
    label = class_of(split_of(entry.parts, task)[1], task)
    if label is None or label in task.number_of or nearest(label, task.classes):
        return label
    return None


def _of_file(path: Path, task: Task) -> Contents:
    entry = entry_of(path)
    kind = format_of(entry, task)
    if kind not in FORMATS[task.kind]:
        raise DataError(f"{path}: {_expected(task)}")
    beside = [path.with_name(f"{name}.npy") for name in NAMES] if kind == "npy" else []
    paths = sorted({path, *(each for each in beside if each.is_file())})
    return Contents(format=kind, entries=[entry_of(each) for each in paths])


def _of_folder(path: Path, task: Task) -> Contents:
    files: dict[str, list[Entry]] = defaultdict(list)
    others: list[Entry] = []
    skipped: list[Skipped] = []
    for entry in walk(path):
        if isinstance(entry, Skipped):
            skipped.append(entry)
        elif (kind := format_of(entry, task)) in FORMATS[task.kind]:
            files[kind].append(entry)
        else:
            others.append(entry)
    if not files:
        has = [f"{each.name}: {each.reason}" for each in skipped]
        has += [each.name for each in others]
        more = f"; it has {has[0]}" if has else "; it is empty"
        raise DataError(f"{path}: {_expected(task)}{more}")
    chosen = _chosen(path, files, task)
    for kind in sorted({*files} - {chosen}):
        beside = f"not read: {files[chosen][0].name} is of another format"
        skipped += [Skipped(each.name, beside) for each in files[kind]]
    lists = []
    for entry in others:
        if chosen == "images" and format_of(entry, task) in ("csv", "jsonl"):
            lists.append(entry)
        else:
            what = entry.ending or "a name without an ending"
            skipped.append(Skipped(entry.name, f"{what} is no {task.kind} data"))
    return Contents(
        format=chosen,
        entries=files[chosen],
        lists=lists,
        skipped=sorted(skipped, key=lambda each: each.name),
        test=_test_files(files[chosen], task),
    )


def _expected(task: Task) -> str:
    words = [each for each in FORMATS[task.kind] if each not in ONE_EACH]
    single = {"image": "image files", "series": ".wav files", "text": ".txt files"}
    first = [single[task.kind]] if task.kind in single else []
    return (
        f"expected {task.kind} data: {', '.join([*first, *(f'.{w}' for w in words)])} "
        "or a folder that save_to_disk wrote"
    )


def _chosen(path: Path, files: Mapping[str, list[Entry]], task: Task) -> str:
    """Return the format that is read where there may be several."""
    single = [kind for kind in ONE_EACH if kind in files]
    many = [kind for kind in files if kind not in ONE_EACH]
    if single and any(near_class(each, task) for each in files[single[0]]):
        return single[0]
    if len(many) > 1:
        which = " and ".join(files[kind][0].name for kind in many[:2])
        raise DataError(
            f"{path} holds data in several formats, {which}: keep one, or name the "
            "file itself"
        )
    # A README.txt beside a table is no text; photos are photos.
    return single[0] if not many or "images" in single else many[0]


def _test_files(entries: list[Entry], task: Task) -> frozenset[str]:
    """Return the files for testing: in ``test/``, or ``test.csv`` by ``train.csv``."""
    found = {each.name for each in entries if split_of(each.parts, task)[0] == TEST}
    part = {each: _part_in_name(each) for each in entries}
    trained = {each.parts[:-1] for each in entries if part[each] == TRAIN}
    found |= {
        each.name
        for each in entries
        if part[each] == TEST and each.parts[:-1] in trained
    }
    return frozenset(found)


def _part_in_name(entry: Entry) -> str:
    stem = _SHARD.sub("", entry.parts[-1].partition(".")[0])
    return SPLITS.get(stem.lower(), "")
