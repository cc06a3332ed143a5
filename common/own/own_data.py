"""The data that lie on a device, ready for its rounds.

``open_own_data`` maps names of classes to the task's numbers, keeps decoded samples in
a cache, and decides which of them are never trained on. The samples need not fit into
memory.

What it does with little data: where there is no sample, it says why. One sample, or
one group, is trained on, and nothing is held out; there is then no local measure.

Not here: formats of files (``reading``), and clients of a set that all share
(``common.data.clients``).
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data.clients import ClientData
from common.data.tokens import Tokeniser
from common.errors import DataError, nearest
from common.own.cache_places import Folder, Place
from common.own.collection import Form, Item
from common.own.found import Found, Skipped
from common.own.held_out import held_out_rows
from common.own.index import FORMAT, Index
from common.own.marks import NO_MARKS, Marks, marks_of
from common.own.ranges import moments_of, notes_of
from common.own.reading import find_samples
from common.own.sample_cache import Kept, recall, refresh
from common.own.unnamed import unnamed
from common.own.watch import state_of
from common.task import ImageTask, Moments, Task, TextTask, stored_type
from common.text import reason

LABELS = {"classes", "label_column", "group_column"}
"""What of a task the class and group of a sample depend on."""

UNSHAPING = {*LABELS, "held_out", "min_samples", "scale", "preprocessing"}
"""What of a task does not change a decoded sample."""

FULL = {errno.ENOSPC, errno.EDQUOT}

PROBE = "Eine Probe: 100 naïve words, 日本語の文, हिन्दी, ข้อความ, и ещё."
"""Two tokenisers that make the same of it are taken for the same."""

_NAMED = 3
_LISTED = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnData(ClientData):
    """A device's own samples, mapped into memory, as :class:`ClientData` has them.

    Attributes
    ----------
    path : Path
    task : Task
    own_test : ndarray of int64 or None
        Of the held-out rows, those that its owner has put aside for testing.
    skipped : list of Skipped
        What could not be used.
    odd : dict of str to list of str
        What readers noted of samples that are used, and some of their names.
    format : str
        Endings of the files, the most frequent first: ``"png, jpg"``; without any, the
        task's reader, or "saved" for what ``datasets`` wrote.
    groups, copies, contradictions : int
        Groups that the samples say they are of; samples that are an exact copy of
        another one; those with a copy of another class.
    like_tests : int
        Samples that are held out for what is put aside for testing.
    digest : str
        16 hexadecimal digits that change when a sample is added, lost or changed.
    marks : Marks
        Of what its owner has put aside for testing.
    rows_digest : str
        16 hexadecimal digits of what is in ``x``, row by row.
    """

    path: Path
    task: Task
    own_test: NDArray[np.int64] | None = None
    skipped: list[Skipped] = field(default_factory=list)
    odd: dict[str, list[str]] = field(default_factory=dict)
    format: str = ""
    groups: int = 0
    copies: int = 0
    contradictions: int = 0
    like_tests: int = 0
    digest: str = ""
    marks: Marks = NO_MARKS
    rows_digest: str = ""

    @property
    def rows(self) -> int:
        """Samples that are used, held-out ones included."""
        return len(self.y)

    @property
    def per_class(self) -> NDArray[np.int64]:
        """Samples of every class, held-out ones included; shape (K,)."""
        return np.bincount(self.y, minlength=self.num_classes)

    def moments(self) -> Moments | None:
        """Return the moments of the training rows; None for texts or of no row."""
        return self._moments

    @cached_property
    def _moments(self) -> Moments | None:
        return moments_of(self.x, self.train, self.task)

    @cached_property
    def notes(self) -> list[str]:
        """What its owner should know, a line each; none if all is well."""
        notes = []
        if self.skipped:
            some = [f"{each.name} ({each.reason})" for each in self.skipped[:_NAMED]]
            more = len(self.skipped) - len(some)
            rest = f" and {more} more" if more else ""
            notes.append(f"{len(self.skipped)} skipped: {', '.join(some)}{rest}")
        for note, names in self.odd.items():
            notes.append(f"{note}: {', '.join(names)}")
        if not len(self.train):
            notes.append("nothing to train on: all samples are for testing")
        elif not len(self.held_out):
            notes.append("nothing is held out: there is no local measure")
        if self.like_tests:
            notes.append(
                f"{self.like_tests} samples are held out because samples for testing "
                "are copies of them, or of their group"
            )
        if self.contradictions:
            notes.append(
                f"{self.contradictions} samples have exact copies of another class"
            )
        moments = self.moments()
        return notes + (notes_of(moments, self.task) if moments else [])


def open_own_data(
    path: Path, task: Task, tokeniser: Tokeniser, cache_dir: Path | None
) -> OwnData:
    """Open what lies on this device; what was decoded before is not decoded again.

    Parameters
    ----------
    path : Path
        A file, or a folder of files.
    task : Task
    tokeniser : Tokeniser
        Makes the samples of texts.
    cache_dir : Path or None
        Where caches lie, ``<state-dir>/data``. None, or one that may not be written:
        a temporary file that goes with the process.

    Raises
    ------
    DataError
        If nothing of it can be used, a class has an unknown name, or there is no room:
        one line.
    """
    path = Path(path).expanduser().absolute()
    form = Form(_stored_shape(task), stored_type(task))
    state = state_of(path, _told(task, LABELS))
    place = _place(path, task, tokeniser, cache_dir)
    kept = recall(place, form, state)
    if kept is None:
        where = "the temporary directory" if cache_dir is None else str(cache_dir)
        items = partial(_items, path, task, tokeniser)
        kept = refresh(place, form, state, items, what=str(path), where=where)
    return _of(path, task, kept)


def _of(path: Path, task: Task, kept: Kept) -> OwnData:
    index = kept.index
    held = held_out_rows(index.identity, task.held_out, index.test)[index.order]
    test = index.order[index.test[index.order]]
    endings = [each.removeprefix(".") for each in index.facts.endings if each]
    return OwnData(
        path=path,
        task=task,
        x=kept.x,
        y=index.y,
        units=index.identity[index.order[~held]].view(np.int64),
        train=index.order[~held],
        held_out=index.order[held],
        own_test=test if len(test) else None,
        skipped=index.facts.skipped,
        odd=index.facts.odd,
        groups=len(np.unique(index.identity[index.identity != index.content])),
        copies=len(index.content) - len(np.unique(index.content)),
        contradictions=_contradictions(index),
        like_tests=int(np.isin(index.identity, index.identity[test]).sum()) - len(test),
        digest=_digest(index),
        rows_digest=_short(index.content.tobytes()),
        marks=marks_of(index.content[test], index.y[test]),
        format=", ".join(endings) or task.reader or "saved",
        num_classes=task.num_classes,
        input_shape=task.input_shape,
        normaliser=task.normaliser,
        kind=task.model_kind,
    )


def _contradictions(index: Index) -> int:
    """Count the samples that have an exact copy of another class."""
    pairs = np.unique(np.stack([index.content, index.y.view(np.uint64)]), axis=1)
    content, classes = np.unique(pairs[0], return_counts=True)
    return int(np.isin(index.content, content[classes > 1]).sum())


def _digest(index: Index) -> str:
    """Hash the samples in the order of their names, wherever they lie."""
    facts = (index.content, index.identity, index.y, index.test)
    return _short(b"".join(each[index.order].tobytes() for each in facts))


def _items(path: Path, task: Task, tokeniser: Tokeniser) -> Iterator[Item]:
    """Yield what is found, samples with the numbers of their classes."""
    try:
        for each in find_samples(path, task, tokeniser):
            if isinstance(each, Skipped):
                yield each
            elif each.label is None:
                yield Skipped(each.name, "has no class")
            else:
                yield each, _number(each, path, task)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None


def _number(found: Found, path: Path, task: Task) -> int:
    """Return the number of a class.

    Raises
    ------
    DataError
        If the task has no such class.
    """
    label, valid = found.label, task.classes
    if isinstance(label, int):
        if 0 <= label < len(valid):
            return label
        allowed = f"0 to {len(valid) - 1}"
        raise DataError(
            f"{path}, {found.name}: class {label} is none of the task's: {allowed}"
        )
    number = task.number_of.get(str(label))
    if number is not None:
        return number
    names = ", ".join(valid[:_LISTED]) + (", ..." if len(valid) > _LISTED else "")
    raise DataError(
        f"{path}, {found.name}: class {label!r} is none of the task's: "
        f"{names}{nearest(str(label), valid)}"
    )


def _stored_shape(task: Task) -> tuple[int, ...]:
    shape = task.input_shape
    return (*shape[1:], shape[0]) if isinstance(task, ImageTask) else shape


def _place(
    path: Path, task: Task, tokeniser: Tokeniser, cache_dir: Path | None
) -> Place:
    """Return where samples of this path and form are kept."""
    fields = set(type(task).model_fields) - UNSHAPING
    form = [str(FORMAT), _told(task, fields)]
    if isinstance(task, TextTask):
        own = repr(tokeniser) if is_dataclass(tokeniser) else ""
        form += [own, repr(tokeniser.encode([PROBE]).tolist())]
    name = f"{_short(os.fsencode(path))}-{_short(repr(form).encode())}"
    if cache_dir is None:
        return unnamed(name)
    folder = cache_dir / name
    try:
        place = Folder(folder, path)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(f"{folder} cannot be made: {reason(error)}") from None
        return unnamed(name)
    return place if os.access(folder, os.W_OK | os.X_OK) else unnamed(name)


def _told(task: Task, fields: set[str]) -> str:
    return json.dumps(task.model_dump(mode="json", include=fields), sort_keys=True)


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
