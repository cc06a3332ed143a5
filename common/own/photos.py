"""Folders of image files: what class each is of, by its folder or by a list beside it.

A list is a CSV or jsonl file with a column ``file_name``, and columns for the class and
the group where the task has them. What it says of a file comes before the folder.

Not here: decoding (``images``), and images in the cells of a file (``tables``).
"""

from collections.abc import Iterator, Sequence
from functools import partial

from common.own.cells import RowSource
from common.own.folders import TEST, Entry, class_of, split_of
from common.own.found import Found, Skipped, no_group
from common.own.images import read_image
from common.own.tables import facts_of
from common.task import ImageTask

FILE_NAME = "file_name"


def photo_samples(
    entries: Sequence[Entry],
    lists: Sequence[tuple[Entry, RowSource]],
    task: ImageTask,
    *,
    labelled: bool,
) -> Iterator[Found | Skipped]:
    """Yield images as samples, in the order of ``entries``.

    Parameters
    ----------
    entries : sequence of Entry
        Image files.
    lists : sequence of (Entry, RowSource)
        What says more about them; their names are relative to the list's folder.

    Raises
    ------
    DataError
        As ``label_of`` does.
    """
    said: dict[str, dict[str, object] | str] = {}
    there = {entry.name for entry in entries}
    for entry, source in lists:
        folder = entry.parts[:-1]
        # A list may be of groups alone: then folders say the class.
        has_class = task.label_column in source.columns
        known = source.extras(task, labelled=False)
        for rows in source.read([FILE_NAME, *known]):
            if isinstance(rows, Skipped):
                yield rows
                continue
            for at, cell in enumerate(rows.cells[FILE_NAME]):
                words = str(cell).replace("\\", "/").split("/")
                name = "/".join((*folder, *(w for w in words if w not in ("", "."))))
                facts = facts_of(
                    source, rows, at, task, labelled=labelled and has_class
                )
                if name not in there:
                    yield Skipped(
                        f"{source.name}#{rows.numbers[at]}",
                        f"{FILE_NAME} = {cell!r:.100}: there is no such image",
                    )
                    continue
                if isinstance(facts, dict) and not has_class:
                    facts = {k: v for k, v in facts.items() if k != "label"}
                if said.setdefault(name, facts) != facts:
                    said[name] = f"{source.name} says two different things of it"
    for entry in entries:
        yield _photo(entry, said.get(entry.name), task, labelled)


def _photo(
    entry: Entry,
    said: dict[str, object] | str | None,
    task: ImageTask,
    labelled: bool,
) -> Found | Skipped:
    if isinstance(said, str):
        return Skipped(entry.name, said)
    split, folders = split_of(entry.parts, task)
    label = class_of(folders, task)
    if label not in task.number_of and not labelled:
        label = None
    facts = {"label": label, "group": None, "test": False} | (said or {})
    if facts["label"] is None and labelled:
        return Skipped(entry.name, "lies in no folder that is called by its class")
    return Found(
        name=entry.name,
        label=facts["label"],  # type: ignore[arg-type]
        value=partial(read_image, entry.path, task),
        stamp=entry.stamp,
        group=facts["group"],  # type: ignore[arg-type]
        test=bool(facts["test"]) or split == TEST,
        note=no_group(facts["group"], task),
    )
