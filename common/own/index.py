"""What a cache of decoded samples holds, row by row, and its form on the disk.

Not here: the samples themselves (``common.own.sample_cache``).
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.own.found import Skipped
from common.own.held_out import Hashes

FORMAT = 2
"""Another number makes all devices decode anew."""

_DIGEST = 32


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an index says of all samples together.

    Attributes
    ----------
    state : str
        Of the files when they were read; see ``common.own.watch``.
    settled : bool
        Whether reading the same files again would find the same.
    skipped : list of Skipped
    odd : dict of str to list of str
        What readers noted, and the names it was noted of.
    endings : dict of str to int
        Samples by the ending of their file's name.
    """

    state: str
    settled: bool = True
    skipped: list[Skipped] = field(default_factory=list)
    odd: dict[str, list[str]] = field(default_factory=dict)
    endings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """The rows of a file of samples.

    Attributes
    ----------
    key : ndarray of uint64, shape (n,)
        Hash of the sample's name and of the stamp of its file.
    content, identity : ndarray of uint64, shape (n,)
        See ``common.own.held_out``.
    y : ndarray of int64, shape (n,)
        Numbers of the classes.
    test : ndarray of bool, shape (n,)
    order : ndarray of int64, shape (n,)
        Row numbers in the order in which the samples were found, so that it does not
        matter which of them were there first.
    facts : Facts
    file : str
        Name of the file of samples.
    written : int
        When that was last written, in ns: what was written since is not ours.
    """

    key: Hashes
    content: Hashes
    identity: Hashes
    y: NDArray[np.int64]
    test: NDArray[np.bool_]
    order: NDArray[np.int64]
    facts: Facts
    file: str = ""
    written: int = 0

    def __len__(self) -> int:
        return len(self.key)

    def to_bytes(self) -> bytes:
        """Return what :meth:`from_bytes` reads."""
        rest = {"facts": asdict(self.facts), "file": self.file, "written": self.written}
        buffer = BytesIO()
        np.savez(
            buffer,
            rest=np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8),
            **{name: getattr(self, name) for name in ARRAYS},
        )
        data = buffer.getvalue()
        return hashlib.sha256(data).digest() + data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Read what :meth:`to_bytes` wrote; None if it is damaged."""
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        with np.load(BytesIO(data[_DIGEST:]), allow_pickle=False) as archive:
            given: dict[str, Any] = {name: archive[name] for name in ARRAYS}
            given |= json.loads(archive["rest"].tobytes())
        facts = given.pop("facts")
        facts["skipped"] = [Skipped(**each) for each in facts["skipped"]]
        return cls(**given, facts=Facts(**facts))


ARRAYS = ("key", "content", "identity", "y", "test", "order")
