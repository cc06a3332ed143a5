"""Data sets by name: the registry, and where each one is found.

``load_dataset`` reads ``<data-dir>/NAME.npz`` (images, vectors) or ``NAME.jsonl``,
``NAME.jsonl.gz`` (texts) when it is there; else it asks torchvision's downloader
(``downloads``), which leaves that file behind; else it says what to do. ``digits``
ships inside scikit-learn and needs no file.

Not here: what a file must look like (``npz``, ``jsonl``), and who gets which rows
(``partition``).

Normalisation constants, after division by 255: CIFAR-10, EMNIST letters and
Fashion-MNIST are the channel mean and standard deviation of their training images;
GTSRB those of its full training set at 32x32. Digits are 0 to 16 and only divided by
16. A user's uint8 file gets mean 0.5 and std 0.25, a float file is used as it is:
fixed rules, so that devices with different files agree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from common.data.dataset import Dataset, Normaliser, input_shape_of
from common.data.digits import load_digits
from common.data.downloads import fetch
from common.data.errors import DataError, did_you_mean
from common.data.jsonl import load_jsonl
from common.data.npz import Arrays, read_npz
from common.data.tokens import HashedPieces, Tokeniser

HASHED = HashedPieces()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set comes from.

    Attributes
    ----------
    load : Callable[[str, Path, Tokeniser], Dataset]
        Makes the data set ``name`` of the file at a path; the tokeniser is for texts.
    files : tuple of str
        File names looked for in the data directory, first match wins; none for a data
        set that is embedded in a package.
    fetch : Callable[[Path], Path] or None
        Downloads into a directory and returns the file for ``load``.
    about : str
        What a file to be put there by hand is.
    """

    load: Callable[[str, Path, Tokeniser], Dataset]
    files: tuple[str, ...] = ()
    fetch: Callable[[Path], Path] | None = None
    about: str = ""


def load_dataset(
    name: str, data_dir: str | Path, tokeniser: Tokeniser = HASHED
) -> Dataset:
    """Load a data set; a second call in the same process returns the same object.

    Parameters
    ----------
    name : str
        A name of ``DATASETS``, or ``NAME`` of a file ``NAME.npz``, ``NAME.jsonl`` or
        ``NAME.jsonl.gz`` in ``data_dir``; of several, the first.
    data_dir : str or Path
        Directory searched for the file and, failing that, downloaded into.
    tokeniser : Tokeniser
        Makes the samples of texts; not used on anything else.

    Raises
    ------
    DataError
        If the name is unknown, the file is unusable or the download fails.
    """
    directory = Path(data_dir).expanduser().absolute()
    if Path(name).name != name:  # the name comes over the wire: it is no path
        raise DataError(_unknown(name, directory))
    source = DATASETS.get(name) or Source(
        load=_load_file, files=(f"{name}.npz", *_text_files(name))
    )
    if not source.files:
        return _load(name, source, directory, (0, 0), tokeniser)
    path = next((p for f in source.files if (p := directory / f).is_file()), None)
    if path is None:
        if source.fetch is None:
            raise DataError(_missing(name, source, directory))
        path = source.fetch(directory)
    stat = path.stat()
    return _load(name, source, path, (stat.st_mtime_ns, stat.st_size), tokeniser)


# A few, not all: a long study in one process walks through many data sets.
@lru_cache(maxsize=4)
def _load(
    name: str,
    source: Source,
    path: Path,
    _version: tuple[int, int],
    tokeniser: Tokeniser,
) -> Dataset:
    return source.load(name, path, tokeniser)


def _text_files(name: str) -> tuple[str, str]:
    return f"{name}.jsonl", f"{name}.jsonl.gz"


def _missing(name: str, source: Source, directory: Path) -> str:
    if not source.about:
        return _unknown(name, directory)
    return (
        f"dataset {name!r} is not in {directory}: put {' or '.join(source.files)} "
        f"there ({source.about}), or set data-dir to the directory that has it"
    )


def _unknown(name: str, directory: Path) -> str:
    mine = {
        path.name.removesuffix(end)
        for end in (".npz", *_text_files(""))
        for path in directory.glob(f"*{end}")
    }
    valid = sorted({*DATASETS, *mine})
    return (
        f"unknown dataset {name!r}: choose from {', '.join(valid)}, or put {name}.npz "
        f"with arrays x_train, y_train, x_test, y_test into {directory}, or "
        f"{name}.jsonl with fields text and label{did_you_mean(name, valid)}"
    )


def _dataset(name: str, arrays: Arrays, normaliser: Normaliser) -> Dataset:
    return Dataset(
        name=name,
        x_train=arrays.x_train,
        y_train=arrays.y_train,
        x_test=arrays.x_test,
        y_test=arrays.y_test,
        num_classes=arrays.num_classes,
        input_shape=input_shape_of(arrays.x_train.shape[1:]),
        normaliser=normaliser,
        owner_train=arrays.owner_train,
        group_train=arrays.group_train,
    )


def _load_file(name: str, path: Path, tokeniser: Tokeniser) -> Dataset:
    """Load a user's file."""
    if path.name in _text_files(name):
        return load_jsonl(name, path, tokeniser)
    arrays = read_npz(path)
    if arrays.x_train.dtype != np.uint8:
        return _dataset(name, arrays, Normaliser())
    return _dataset(name, arrays, Normaliser(scale=255.0, mean=(0.5,), std=(0.25,)))


def _images(
    name: str,
    *,
    num_classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    aliases: tuple[str, ...] = (),
) -> Source:
    """Return the source of a well-known set of images in bytes."""

    def load(name: str, path: Path, _: Tokeniser) -> Dataset:
        arrays = read_npz(path, num_classes=num_classes)
        x = arrays.x_train
        shape = input_shape_of(x.shape[1:])
        if x.dtype != np.uint8 or len(shape) != 3 or shape[0] != len(mean):
            raise DataError(
                f"{path}, array 'x_train': {name} is uint8 images of {len(mean)} "
                f"channel(s), got {x.dtype} {x.shape}; keep other data under another "
                "name"
            )
        return _dataset(name, arrays, Normaliser(scale=255.0, mean=mean, std=std))

    return Source(
        load=load,
        files=tuple(f"{stem}.npz" for stem in (name, *aliases)),
        fetch=lambda directory: fetch(name, directory),
    )


def _texts(name: str, *, num_classes: int, about: str) -> Source:
    """Return the source of a well-known set of texts, which is not downloaded."""
    return Source(
        load=partial(load_jsonl, num_classes=num_classes),
        files=_text_files(name),
        about=f"a line is an object with the fields text and label; {about}",
    )


DATASETS: dict[str, Source] = {
    "digits": Source(load=load_digits),
    "cifar10": _images(
        "cifar10",
        num_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "emnist": _images(
        "emnist",
        num_classes=26,
        mean=(0.1722,),
        std=(0.3309,),
        aliases=("emnist_letters",),
    ),
    "gtsrb": _images(
        "gtsrb",
        num_classes=43,
        mean=(0.3403, 0.3121, 0.3214),
        std=(0.2724, 0.2608, 0.2669),
    ),
    "fashion_mnist": _images(
        "fashion_mnist", num_classes=10, mean=(0.2860,), std=(0.3530,)
    ),
    "reviews": _texts(
        "reviews",
        num_classes=4,
        about="Multi-Domain Sentiment: labels 0 to 3 for 1, 2, 4 and 5 stars, field "
        "group for the product domain",
    ),
    "sent140": _texts(
        "sent140", num_classes=2, about="Sentiment140: labels 0 and 1 for bad and good"
    ),
}
