"""From text to token ids, without a vocabulary that would have to be shipped.

A text is lower-cased (after Unicode's NFKC), and cut into words and single signs of
punctuation (``scripts``). A word of up to ``WORD`` letters is one piece; a longer one
is cut every ``PIECE`` letters, and all but its first piece are marked:
``disappointing`` and ``disappeared`` begin alike, and what is inside them is no word of
its own. Where a script has no spaces (Chinese, Thai), each letter is a piece and each
two neighbours are one: a word gives the same pieces wherever it stands. If a text has
more pieces than there is room for, letters give way to pairs, which say more.

The id of a piece is a hash of it (the hashing trick, Weinberger et al., ICML 2009):
every process of every device comes to the same one, and pieces that share an id are
what it costs.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import islice, pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.data.scripts import runs

PADDING = 0
"""Fills a text up to its length, at the end only."""

EMPTY = 1
"""Stands for a text without any piece, so that no sample is padding alone."""

FIRST = 2
"""The lowest id of a piece."""

WORD, PIECE = 8, 4


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
    return (piece for piece, _ in _pieces(text))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield pieces, and whether a text without this one would say the same."""
    for letters, spaced in runs(text):
        if not spaced:
            yield letters[0], len(letters) > 1
            for pair in pairwise(letters):
                yield "".join(pair), False
                yield pair[1], True
        elif len(letters) <= WORD:
            yield "".join(letters), False
        else:
            yield "".join(letters[:PIECE]), False
            for start in range(PIECE, len(letters), PIECE):
                yield "##" + "".join(letters[start : start + PIECE]), False


@dataclass(frozen=True, kw_only=True)
class HashedPieces:
    """Texts of ``length`` ids, at least 1; longer ones are cut off.

    Of the ``vocabulary``, at least 3, one is padding and one the empty text.
    """

    length: int = 64
    vocabulary: int = 4096

    def encode(self, texts: Iterable[str]) -> NDArray[Any]:
        """Return the ids of texts, shape (N, length); see :func:`padded`."""
        rows = [self._ids(text) for text in texts]
        return padded(rows, self.length, self.vocabulary)

    def _ids(self, text: str) -> list[int]:
        room = self.vocabulary - FIRST
        # Of three pieces in a row, one is no single letter of a pair.
        first = list(islice(_pieces(text), 3 * self.length))
        spare = self.length - sum(not extra for _, extra in first)
        ids = []
        for piece, extra in first:
            spare -= extra
            if not extra or spare >= 0:
                ids.append(FIRST + _hash(piece) % room)
        return ids[: self.length] or [EMPTY]


def padded(rows: list[list[int]], length: int, vocabulary: int) -> NDArray[Any]:
    """Return rows of up to ``length`` ids as one array, ``PADDING`` at their ends.

    Of the smallest unsigned type that holds the vocabulary.
    """
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
