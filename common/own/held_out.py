"""Which samples of its own a device never trains on: decided by what they are.

A sample's side is a hash of its identity: of its group if it has one, else of its
stored content. So neither the order of files nor what was there before counts, data
that grow move no sample across, groups stay whole, and exact copies are on one side,
also where they lie on two devices.

Not here: the held-out parts of clients whose data are cut from one set
(``common.data.splits``).
"""

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


def content_hash(sample: NDArray[Any]) -> int:
    """Return 64 bits of what a stored sample is."""
    data = np.ascontiguousarray(sample).data
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def group_hash(group: str) -> int:
    """Return 64 bits of a group's name; no sample's content has the same."""
    name = group.encode("utf-8", "surrogatepass")
    return int.from_bytes(
        blake2b(name, digest_size=8, person=b"group").digest(), "little"
    )


def held_out_rows(
    identity: Hashes, share: float, test: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which samples are held out, as a mask of shape (n,).

    Parameters
    ----------
    identity : ndarray of uint64, shape (n,)
        Equal numbers are never separated.
    share : float
        Of the identities; above 0 and below 1.
    test : ndarray of bool, shape (n,)
        What its owner has put aside for testing. It is held out, and so is everything
        of the same identity.

    Returns
    -------
    ndarray of bool, shape (n,)
        Training is never left empty: where all hashes fall on the held-out side, what
        has the highest one is trained on, as long as that is so. Only what is for
        testing stays held out always. Nothing may be held out: one sample, or one
        group, is trained on.
    """
    # Compared as integers: the same on every platform.
    held = identity < np.uint64(int(share * 2**64))
    tested = np.isin(identity, identity[test])
    mine = ~tested
    if mine.any() and held[mine].all():
        held &= identity != identity[mine].max()
    return held | tested
