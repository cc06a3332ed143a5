"""Decoded samples of a device: each decoded once, then mapped into memory.

A second message decodes nothing: as long as no file has changed, not even a reader is
asked. Else samples of unchanged files are taken over, new ones are appended, and those
that have gone are left out. What is damaged is decoded anew.

Not here: where the cache lies (``cache_places``), what a sample or a class is
(``own_data``).
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.own.cache_places import Place
from common.own.collection import Collection, Form, Item, room
from common.own.index import Index
from common.own.mapped import PIECE, mapped, release


@dataclass(frozen=True, eq=False)
class Kept:
    """Samples of a cache: its index, and x of shape (n, *stored), read-only."""

    index: Index
    x: NDArray[Any]


def recall(place: Place, form: Form, state: str) -> Kept | None:
    """Return what is kept, if it is of this state of the files and undamaged."""
    index = place.read()
    if index is None or index.facts.state != state or not index.facts.settled:
        return None
    file = place.opened(index)
    if file is None:
        return None
    with file:
        if _rows_in(file, form) < len(index) or place.written(file) != index.written:
            return None
        place.used()
        return Kept(index, _mapped(file, form, len(index)))


def refresh(
    place: Place,
    form: Form,
    state: str,
    items: Callable[[], Iterable[Item]],
    *,
    what: str,
    where: str,
) -> Kept:
    """Bring a cache to the present state of the files.

    Parameters
    ----------
    place : Place
    form : Form
    state : str
        Of the files, taken before ``items`` is called.
    items : Callable[[], iterable]
        Finds the samples.
    what, where : str
        The data path, and what the cache lies in, for messages.

    Raises
    ------
    DataError
        If there is no sample, or no room for them; otherwise what ``items`` raises.
        The old cache stays.
    """
    with place.alone():
        # Another process may have been faster.
        if (kept := recall(place, form, state)) is not None:
            return kept
        with room(where):
            old, x = place.read(), np.empty((0, *form.shape), form.dtype)
            file = None if old is None else place.opened(old)
            if old is not None and file is not None:
                with file:
                    x = _mapped(file, form, min(_rows_in(file, form), len(old)))
            whole = old is not None and len(x) == len(old) > 0
            size = len(x) * form.nbytes
            out = place.at_end(old, size) if old and whole else place.fresh()
        outs = [out]
        try:
            found = Collection(form, old, x, out, where)
            for item in items():
                found.add(item)
            if not found.rows:
                raise DataError(found.nothing(what))
            rows = np.array(found.rows, dtype=np.int64)
            with room(where):
                out.flush()
                if found.taken_over < len(x) or (len(x) and not whole):
                    start = size if whole else 0
                    new = _mapped(out, form, found.new, start)
                    outs.append(out := place.fresh())
                    _copy(x, new, rows, out)
                    rows = np.arange(len(rows), dtype=np.int64)
                index = place.commit(found.index(state, rows), out)
                return Kept(index, _mapped(out, form, len(index)))
        except BaseException:
            for each in outs:
                with suppress(OSError):  # a full disk says it once more
                    each.close()
                place.abandon(each, old, size)
            raise
        finally:
            for each in outs:
                each.close()


def _rows_in(file: IO[bytes], form: Form) -> int:
    return os.fstat(file.fileno()).st_size // form.nbytes


def _mapped(file: IO[bytes], form: Form, rows: int, start: int = 0) -> NDArray[Any]:
    return mapped(file, form.shape, form.dtype, rows, start)


def _copy(
    x: NDArray[Any], new: NDArray[Any], rows: NDArray[np.int64], out: IO[bytes]
) -> None:
    """Write the given rows of ``x`` followed by ``new``, a piece at a time."""
    step = max(1, PIECE // max(1, x[:1].nbytes or new[:1].nbytes))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        piece = np.empty((len(some), *x.shape[1:]), dtype=x.dtype)
        old = some < len(x)
        piece[old] = x[some[old]]
        piece[~old] = new[some[~old] - len(x)]
        out.write(piece.data)
        release(x)
        release(new)
    out.flush()
