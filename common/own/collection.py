"""Going through the samples that are found, and writing those that are new.

Not here: where they are written to (``cache_places``), and what becomes of it
(``sample_cache``).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.own.found import Found, Skipped
from common.own.held_out import content_hash, group_hash
from common.own.index import Facts, Index
from common.own.mapped import Reading
from common.text import reason

Item = tuple[Found, int] | Skipped
"""A sample and the number of its class, or what is no sample."""

_NAMES = 3
"""Names kept of the samples that a note is about."""


@dataclass(frozen=True)
class Form:
    """Shape and type of every stored sample."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def check(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return a decoded sample as it is stored.

        Raises
        ------
        DataError
            If it is another thing.
        """
        value = np.asarray(value)
        if value.shape != self.shape:
            raise DataError(f"has shape {value.shape}: expected {self.shape}")
        value = np.ascontiguousarray(value, dtype=self.dtype)
        if self.dtype.kind == "f" and np.isinf(value).any():
            raise DataError("holds infinity: expected finite numbers")
        return value


@contextmanager
def room(where: str) -> Iterator[None]:
    """Turn what a disk says into one line.

    Raises
    ------
    DataError
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{where} cannot keep the samples: {reason(error)}") from None


class Collection:
    """The samples of one pass, in the order in which they are found.

    Parameters
    ----------
    form : Form
    old : Index or None
        Of a cache that there is.
    x : ndarray, shape (m, *stored)
        The rows of ``old`` that are there: fewer than it names if it is damaged.
    out : binary file
        New samples are written to it, at its present position.
    where : str
        What it is, for messages.

    Attributes
    ----------
    rows : list of int
        Of every sample: its row in ``x``, or m plus its number among the new ones.
    new : int
    """

    def __init__(
        self,
        form: Form,
        old: Index | None,
        x: NDArray[Any],
        out: IO[bytes],
        where: str,
    ) -> None:
        self.rows: list[int] = []
        self.new = 0
        self._form, self._old, self._x = form, old, x
        self._stored = Reading(x)
        self._out, self._where = out, where
        self._known: dict[int, int] = {}
        if old is not None:
            keys = old.key[: len(x)].tolist()
            twice = {key for key, times in Counter(keys).items() if times > 1}
            self._known = {k: i for i, k in enumerate(keys) if k not in twice}
        self._key: list[int] = []
        self._content: list[int] = []
        self._identity: list[int] = []
        self._y: list[int] = []
        self._test: list[bool] = []
        self._settled = True
        self._skipped: list[Skipped] = []
        self._odd: dict[str, list[str]] = {}
        self._endings: Counter[str] = Counter()

    @property
    def taken_over(self) -> int:
        """Samples that were in the cache already."""
        return len(self.rows) - self.new

    def add(self, item: Item) -> None:
        """Take in one thing that was found.

        Raises
        ------
        DataError
            If there is no room for it.
        """
        if isinstance(item, Skipped):
            self._skipped.append(item)
            return
        found, number = item
        stamp = repr((found.name, found.stamp)).encode("utf-8", "surrogatepass")
        key = int.from_bytes(blake2b(stamp, digest_size=8).digest(), "little")
        known = self._taken_over(key)
        content = self._decoded(found) if known is None else known
        if content is None:
            return
        self._key.append(key)
        self._content.append(content)
        group = found.group
        self._identity.append(content if group is None else group_hash(group))
        self._y.append(number)
        self._test.append(found.test)
        self._endings[PurePosixPath(found.name.partition("#")[0]).suffix.lower()] += 1
        if found.note:
            names = self._odd.setdefault(found.note, [])
            if len(names) < _NAMES:
                names.append(found.name)

    def _taken_over(self, key: int) -> int | None:
        """Take a row over, unless it is damaged; return the hash of its content."""
        row = self._known.pop(key, None)
        if row is None or self._old is None:
            return None
        content = content_hash(self._stored(np.array([row])))
        if content != int(self._old.content[row]):
            return None
        self.rows.append(row)
        return content

    def _decoded(self, found: Found) -> int | None:
        try:
            value = self._form.check(found.value())
        except Exception as error:  # whatever a reader or its library does
            # What the system says may be over with the next try.
            gone = isinstance(error, OSError) and error.errno is not None
            self._settled = self._settled and not gone
            told = str(error) if isinstance(error, DataError) else reason(error)
            self._skipped.append(Skipped(found.name, told))
            return None
        with room(self._where):
            self._out.write(value.data)
        self.rows.append(len(self._x) + self.new)
        self.new += 1
        return content_hash(value)

    def nothing(self, what: str) -> str:
        """Return why there is no sample at all of what was gone through."""
        if not self._skipped:
            return f"{what} holds no sample"
        some = [f"{each.name} ({each.reason})" for each in self._skipped[:_NAMES]]
        more = len(self._skipped) - len(some)
        rest = f" and {more} more" if more else ""
        return f"{what} holds no sample that can be used: {', '.join(some)}{rest}"

    def index(self, state: str, rows: NDArray[np.int64]) -> Index:
        """Return the index of the samples.

        Parameters
        ----------
        state : str
            Of the files.
        rows : ndarray of int64, shape (n,)
            Of every sample, where it is now.
        """

        def placed(values: list[Any], dtype: Any) -> NDArray[Any]:
            array = np.empty(len(rows), dtype=dtype)
            array[rows] = np.array(values, dtype=dtype)
            return array

        return Index(
            key=placed(self._key, np.uint64),
            content=placed(self._content, np.uint64),
            identity=placed(self._identity, np.uint64),
            y=placed(self._y, np.int64),
            test=placed(self._test, np.bool_),
            order=rows,
            facts=Facts(
                state=state,
                settled=self._settled,
                skipped=self._skipped,
                odd=self._odd,
                endings=dict(self._endings.most_common()),
            ),
        )
