"""From text to token ids, without a vocabulary that would have to be shipped.

A text is lower-cased (after Unicode's NFKC), and cut into words and single signs of
punctuation. A word of up to ``WORD`` letters is one piece; a longer one is cut every
``PIECE`` letters, and all but its first piece are marked: ``disappointing`` and
``disappeared`` begin alike, and what is inside them is no word of its own. The id of a
piece is a hash of it (the hashing trick, Weinberger et al., ICML 2009): every process
of every device comes to the same one, and pieces that share an id are what it costs.
"""

import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

PADDING = 0
"""Fills a text up to its length, at the end only."""

EMPTY = 1
"""Stands for a text without any piece, so that no sample is padding alone."""

FIRST = 2
"""The lowest id of a piece."""

WORD, PIECE = 8, 4

_PIECES = re.compile(r"\w+|[^\w\s]")


class Tokeniser(Hashable, Protocol):
    """Anything that turns texts into ids; equal tokenisers give equal ids.

    Must be hashable: a data set is kept under the tokeniser it was read with.
    """

    @property
    def length(self) -> int:
        """Ids of one text, padding included."""

    @property
    def vocabulary(self) -> int:
        """Ids there are; all are below it."""

    def encode(self, texts: Iterable[str]) -> NDArray[Any]:
        """Return the ids of texts, shape (N, length)."""


def pieces(text: str) -> Iterator[str]:
    """Yield what a text is cut into, in order."""
    for match in _PIECES.finditer(unicodedata.normalize("NFKC", text).lower()):
        word = match[0]
        if len(word) <= WORD:
            yield word
            continue
        yield word[:PIECE]
        for start in range(PIECE, len(word), PIECE):
            yield f"##{word[start : start + PIECE]}"


@dataclass(frozen=True, kw_only=True)
class HashedPieces:
    """Texts of ``length`` ids below ``vocabulary``: longer ones are cut off.

    Attributes
    ----------
    length : int
        Ids of one text, at least 1.
    vocabulary : int
        Ids there are, padding and the empty text included, at least 3.
    """

    length: int = 64
    vocabulary: int = 4096

    def encode(self, texts: Iterable[str]) -> NDArray[Any]:
        """Return the ids of texts.

        Returns
        -------
        ndarray, shape (N, length)
            Of the smallest unsigned type that holds the vocabulary; ``PADDING`` after
            the last piece of a shorter text.
        """
        rows = [self._ids(text) for text in texts]
        return padded(rows, self.length, self.vocabulary)

    def _ids(self, text: str) -> list[int]:
        room = self.vocabulary - FIRST
        first = islice(pieces(text), self.length)
        return [FIRST + _hash(piece) % room for piece in first] or [EMPTY]


def padded(rows: list[list[int]], length: int, vocabulary: int) -> NDArray[Any]:
    """Return rows of up to ``length`` ids as one array, ``PADDING`` at their ends."""
    dtype = np.min_scalar_type(vocabulary - 1)
    x = np.full((len(rows), length), PADDING, dtype=dtype)
    for row, ids in zip(x, rows, strict=True):
        row[: len(ids)] = ids
    return x


@lru_cache(maxsize=2**16)
def _hash(piece: str) -> int:
    # Not hash(): it is another one in every process. JSON may hold half a surrogate
    # pair, which strict UTF-8 has no bytes for.
    data = piece.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
