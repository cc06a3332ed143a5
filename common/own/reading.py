"""Reading what lies on a device, of whatever format it is.

``find_samples`` looks at what is there (``contents``) and asks the reader of that
format; each is a module beside this one. Samples are found cheaply and decoded later,
one by one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from common.data.tokens import Tokeniser
from common.errors import DataError, SettingsError
from common.own.array_files import NAMES, npy_arrays, npz_arrays
from common.own.array_samples import array_samples
from common.own.cells import RowSource
from common.own.columns import open_csv, open_parquet
from common.own.contents import Contents, contents_of, format_of, near_class
from common.own.folders import Entry, class_of, split_of
from common.own.found import Found, Skipped
from common.own.lines import open_jsonl
from common.own.photos import FILE_NAME, photo_samples
from common.own.recordings import row_windows
from common.own.saved import open_saved
from common.own.tables import image_rows, row_samples
from common.own.texts import text_file
from common.own.wav import wav_windows
from common.registry import READERS
from common.task import ImageTask, SeriesTask, Task, TextTask
from common.text import reason

Samples = Iterator[Found | Skipped]


def find_samples(
    path: Path, task: Task, tokeniser: Tokeniser, *, labelled: bool = True
) -> Samples:
    """Yield the samples of a file or folder, and what there cannot be used.

    Parameters
    ----------
    path : Path
        A file, or a folder of files.
    task : Task
        What a sample is.
    tokeniser : Tokeniser
        Makes the samples of texts.
    labelled : bool
        Whether what has no class is no sample. Without, a class that the task does
        not know is none.

    Yields
    ------
    Found or Skipped
        In the order of their names.

    Raises
    ------
    DataError
        If it cannot be read: one line. It may come after some samples, which are not
        to be used then.
    SettingsError
        If the task names a reader that cannot be loaded.
    """
    path = path.expanduser()
    if task.reader and task.reader not in READERS.built_in:
        yield from _by_own_reader(path, task, tokeniser, labelled)
    else:
        yield from _Reader(path, task, tokeniser, labelled).samples()


def _by_own_reader(
    path: Path, task: Task, tokeniser: Tokeniser, labelled: bool
) -> Samples:
    """Ask a reader of the user's own: for arrays by name, or for samples."""
    read = READERS.find(task.reader)
    try:
        found = read(path, tokeniser)
        status = path.stat()
        stamp = status.st_size, status.st_mtime_ns
        if isinstance(found, Mapping):
            yield from array_samples(
                path.name, found, stamp, task, tokeniser, labelled=labelled
            )
            return
        for each in found:
            if not isinstance(each, Found | Skipped):
                raise READERS.error(
                    task.reader,
                    f"gave a {type(each).__name__}: expected arrays by name, or each "
                    "a Found or Skipped",
                )
            yield each
    except (DataError, SettingsError):
        raise
    except Exception as error:  # whatever a user's reader does
        raise DataError(
            f"{path} cannot be read by {task.reader}: {reason(error)}"
        ) from error


class _Reader:
    """One reading of one path."""

    def __init__(
        self, path: Path, task: Task, tokeniser: Tokeniser, labelled: bool
    ) -> None:
        self.path, self.task = path, task
        self.tokeniser, self.labelled = tokeniser, labelled
        self.there: Contents = contents_of(path, task)

    def samples(self) -> Samples:
        """Yield what is there, by its format."""
        there, task = self.there, self.task
        yield from there.skipped
        if there.format == "saved":
            yield from self.several(
                {p.name: partial(self.saved, p) for p in there.folders}
            )
        elif isinstance(task, ImageTask) and there.format == "images":
            lists = [self.list_of(entry) for entry in there.lists]
            yield from (each for each in lists if isinstance(each, Skipped))
            good = [each for each in lists if not isinstance(each, Skipped)]
            yield from photo_samples(there.entries, good, task, labelled=self.labelled)
        elif there.format in ("txt", "wav"):
            for entry in there.entries:
                yield from self.one_each(entry)
        elif there.format == "npy":
            yield from self.npy()
        else:
            yield from self.several(
                {entry.name: partial(self.many, entry) for entry in there.entries}
            )

    def several(self, files: Mapping[str, Callable[[], Samples]]) -> Samples:
        """Read files one after the other; one that cannot be read is passed over.

        Unless nothing can: then why the first cannot.
        """
        first: DataError | None = None
        used = False
        for name, read in files.items():
            try:
                for each in read():
                    used = used or isinstance(each, Found)
                    yield each
            except DataError as error:
                first = first or error
                if len(files) > 1:
                    yield Skipped(name, str(error))
        if first and (not used or len(files) == 1):
            raise first

    def many(self, entry: Entry) -> Samples:
        """Yield the samples of one file of many."""
        test = entry.name in self.there.test
        if self.there.format == "npz":
            yield from array_samples(
                entry.name,
                npz_arrays(entry),
                entry.stamp,
                self.task,
                self.tokeniser,
                labelled=self.labelled,
                test=test,
            )
            return
        source = self.opened(entry)
        label = near_class(entry, self.task)
        yield from self.rows(replace(source, label=label, test=test), entry.path)

    def opened(self, entry: Entry) -> RowSource:
        match format_of(entry, self.task):
            case "csv":
                return open_csv(entry, self.task)
            case "jsonl":
                return open_jsonl(entry)
        return open_parquet(entry)

    def rows(self, source: RowSource, path: Path) -> Samples:
        """Yield the samples of a file of rows."""
        task, labelled = self.task, self.labelled
        match task:
            case ImageTask():
                return image_rows(source, path, task, labelled=labelled)
            case SeriesTask():
                return row_windows(source, task, labelled=labelled)
        return row_samples(source, task, self.tokeniser, labelled=labelled)

    def saved(self, folder: Path) -> Samples:
        for source in open_saved(folder, folder.name):
            yield from self.rows(source, folder)

    def list_of(self, entry: Entry) -> tuple[Entry, RowSource] | Skipped:
        """Open a file beside images that may say more about them."""
        try:
            source = self.opened(entry)
            source.need([FILE_NAME])
        except DataError as error:
            return Skipped(entry.name, str(error))
        return entry, source

    def one_each(self, entry: Entry) -> Samples:
        """Yield the sample, or the windows, of a file that holds one thing."""
        label = class_of(split_of(entry.parts, self.task)[1], self.task)
        if label is None and self.labelled:
            why = "lies in no folder that is called by its class"
            yield Skipped(entry.name, why)
            return
        if not self.labelled and label not in self.task.number_of:
            label = None
        test = entry.name in self.there.test
        facts: dict[str, Any] = {"label": label, "group": None, "test": test}
        if isinstance(self.task, SeriesTask):
            yield from wav_windows(entry, self.task, facts)
        elif isinstance(self.task, TextTask):
            yield text_file(entry, self.task, self.tokeniser, facts)

    def npy(self) -> Samples:
        """Yield the samples of ``x.npy`` and what lies beside it, in every folder."""
        folders: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
        for entry in self.there.entries:
            if entry.path.stem in NAMES:
                folders[entry.parts[:-1]].append(entry)
            else:
                yield Skipped(entry.name, f"expected one of {', '.join(sorted(NAMES))}")
        if not folders:
            raise DataError(f"{self.path} has no x.npy")
        yield from self.several(
            {
                "/".join((*parts, "x.npy")): partial(self.npy_folder, entries)
                for parts, entries in folders.items()
            }
        )

    def npy_folder(self, entries: list[Entry]) -> Samples:
        name = "/".join((*entries[0].parts[:-1], "x.npy"))
        yield from array_samples(
            name,
            npy_arrays(entries),
            tuple(chain.from_iterable(entry.stamp for entry in entries)),
            self.task,
            self.tokeniser,
            labelled=self.labelled,
            test=all(entry.name in self.there.test for entry in entries),
        )
