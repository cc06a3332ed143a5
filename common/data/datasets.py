"""Data sets by name, and where each one is found.

``load_dataset`` reads ``<data-dir>/NAME.npz`` (images, series, tables) or
``NAME.jsonl``, ``NAME.jsonl.gz`` (texts) when it is there; else it asks torchvision's
downloader (``downloads``), which leaves that file behind; else it says what to do.
``digits`` ships inside scikit-learn and needs no file. Other formats are read by
readers of the user's own (``common.registry.READERS``).

A file that goes by a known name and is something else is the user's own, and is told.

Not here: what the known sets are (``known_sets``), what a file must look like (``npz``,
``jsonl``), the scale of a user's file (``units``), and who gets which rows
(``partition``).
"""

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from common.data.dataset import Dataset
from common.data.downloads import fetch
from common.data.known_sets import DATASETS
from common.data.npz import dataset_of
from common.data.tokens import HashedPieces, Tokeniser
from common.data.units import in_own_units
from common.errors import DataError, nearest
from common.files import version
from common.registry import READERS
from common.text import reason

HASHED = HashedPieces()

logger = logging.getLogger("flwr.expertfleet")

Reader = Callable[[Path, Tokeniser], Dataset | Mapping[str, NDArray[Any]]]
"""Reads a file or directory. It returns the arrays that an .npz file would hold
(``common.data.npz``), which are then checked alike, or a whole data set. The tokeniser
makes the samples of texts as the model expects them."""


def load_dataset(
    name: str,
    data_dir: str | Path,
    tokeniser: Tokeniser = HASHED,
    reader: str = "",
    *,
    series: bool = False,
) -> Dataset:
    """Load a data set; a second call in the same process returns the same object.

    Parameters
    ----------
    name : str
        ``NAME`` of a file ``NAME.npz``, ``NAME.jsonl`` or ``NAME.jsonl.gz`` in
        ``data_dir``; of several, the first. Or a name of ``DATASETS``.
    data_dir : str or Path
        Directory searched for the file and, failing that, downloaded into.
    tokeniser : Tokeniser
        Makes the samples of texts; not used on anything else.
    reader : str
        Of ``READERS``: reads the file or directory ``NAME`` of ``data_dir``, or else
        ``NAME.<reader>``. Empty: by the ending of the file that is there.
    series : bool
        Whether samples of one or two axes in a user's file are windows of a series.

    Raises
    ------
    DataError
        If the name is unknown, the file is unusable or the download fails.
    SettingsError
        If the reader cannot be loaded or returns something else.
    """
    directory = Path(data_dir).expanduser().absolute()
    if Path(name).name != name:  # the name comes over the wire: it is no path
        raise DataError(_unknown(name, directory))
    source = None if reader else DATASETS.get(name)
    files = _files(name, reader)
    try:
        path = next((p for f in files if (p := directory / f).exists()), None)
    except OSError as error:  # a folder that this user may not look into
        raise DataError(f"{directory} cannot be read: {reason(error)}") from None
    if path is None:
        if reader:
            raise DataError(
                f"dataset {name!r} with reader {reader!r}: there is neither a file "
                f"{files[0]} nor {files[1]} in {directory}"
            )
        if source is None:
            raise DataError(_unknown(name, directory))
        if source.about:
            raise DataError(
                f"dataset {name!r} is not in {directory}: put "
                f"{' or '.join(source.files)} there ({source.about}), or set data-dir "
                "to the directory that has it"
            )
        if source.embedded is None:
            path = fetch(name, directory)
    changes = None if path is None else version(path)
    return _load(name, reader, path, changes, tokeniser, series)


def _files(name: str, reader: str) -> tuple[str, ...]:
    """Return the names of files looked for, in this order."""
    if reader:
        return name, f"{name}.{reader}"
    known = DATASETS[name].files if name in DATASETS else ()
    return tuple(dict.fromkeys([*known, *(f"{name}.{each}" for each in _formats())]))


def own_files(name: str, reader: str = "", *, alone: bool = False) -> tuple[str, ...]:
    """Return the file names under which a device keeps data of its own.

    Parameters
    ----------
    name, reader : str
        As for :func:`load_dataset`.
    alone : bool
        Whether the device has no share of a set: then a file that is the same
        everywhere, because it is downloaded, is its own as well.
    """
    if Path(name).name != name:  # the name comes over the wire: it is no path
        return ()
    if not reader and not alone and name in DATASETS and DATASETS[name].files:
        return ()
    return _files(name, reader)


# A few, not all: a long study in one process walks through many data sets.
@lru_cache(maxsize=4)
def _load(
    name: str,
    reader: str,
    path: Path | None,
    _version: Hashable,
    tokeniser: Tokeniser,
    series: bool,
) -> Dataset:
    source = None if reader else DATASETS.get(name)
    if path is None:
        assert source is not None and source.embedded is not None
        return replace(source.embedded(), name=name)
    ending = reader or next(
        (each for each in _formats() if path.name.endswith(f".{each}")), ""
    )
    found = _read(ending, path, tokeniser)
    if source is None:
        dataset = _checked(path, found, series)
    else:
        dataset = _checked(path, found, False)
        if source.is_it(dataset):
            return replace(dataset, name=name, normaliser=source.normaliser)
        logger.info(
            "%s is not the known set %s but data of your own: %d classes, samples of "
            "shape %s in %s",
            *(path, name, dataset.num_classes),
            *(dataset.x_train.shape[1:], dataset.x_train.dtype),
        )
        if series:
            dataset = _checked(path, found, True)
    if isinstance(found, Dataset):
        return replace(dataset, name=name)
    return replace(in_own_units(dataset), name=name)


def _formats() -> list[str]:
    """Return the endings of files that can be read; ours come first."""
    return list(dict.fromkeys([*READERS.built_in, *READERS.names()]))


def _unknown(name: str, directory: Path) -> str:
    mine = {
        path.name.removesuffix(f".{ending}")
        for ending in _formats()
        for path in directory.glob(f"*.{ending}")
    }
    valid = sorted({*DATASETS, *mine})
    return (
        f"unknown dataset {name!r}: choose from {', '.join(valid)}, or put {name}.npz "
        f"with arrays x_train, y_train, x_test, y_test into {directory}, or "
        f"{name}.jsonl with fields text and label{nearest(name, valid)}"
    )


def _read(
    reader: str, path: Path, tokeniser: Tokeniser
) -> Dataset | Mapping[str, NDArray[Any]]:
    """Read a file, or what a user's reader is for."""
    read: Reader = READERS.find(reader)
    try:
        found = read(path, tokeniser)
    except DataError:
        raise
    except Exception as error:  # whatever a user's reader does
        raise DataError(
            f"{path} cannot be read by {reader}: {reason(error)}"
        ) from error
    if not isinstance(found, Dataset | Mapping):
        raise READERS.error(
            reader, f"returned a {type(found).__name__}: expected arrays by name"
        )
    return found


def _checked(
    path: Path, found: Dataset | Mapping[str, NDArray[Any]], series: bool
) -> Dataset:
    if isinstance(found, Dataset):
        return found
    return dataset_of(path, found, series=series)
