"""Copies of the groups' experts on slots that serve equally many clients.

An expert of a large group has more copies than one of a small group (the replication of
DeepSeek-V3's EPLB). Load is how many clients a slot serves: slots are balanced, not
what is in them. With one group every slot holds the same expert; that is a dense model
in shards, and no specialisation.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def place(groups: Ints, loads: Ints, owner: Ints) -> tuple[Ints, Ints]:
    """Return the slot of each participant, and whose expert is in each slot.

    Every present group has one copy, and every further slot goes to the group with the
    most participants per copy. A group's participants are split evenly over its copies.
    Then the largest part goes to the slot that has served least so far, of several to
    the one that holds the group's expert already.

    Parameters
    ----------
    groups : ndarray of int, shape (P,)
        Group of each participant, from 0.
    loads : ndarray of int, shape (S,)
        Clients each slot has served so far.
    owner : ndarray of int, shape (S,)
        Group whose expert is in each slot, -1 for none.

    Returns
    -------
    slots : ndarray of int, shape (P,)
    owner : ndarray of int, shape (S,)
        As it is now; a slot that serves nobody keeps what it has.

    Raises
    ------
    ValueError
        If more groups are present than there are slots.
    """
    present, sizes = np.unique(groups, return_counts=True)
    if len(present) > len(loads):
        raise ValueError(f"{len(present)} groups on {len(loads)} slots")
    copies = np.ones(len(present), dtype=np.int64)
    for _ in range(len(loads) - len(present) if len(present) else 0):
        copies[(sizes / copies).argmax()] += 1
    parts = [
        part
        for group, number in zip(present, copies, strict=True)
        for part in np.array_split(np.flatnonzero(groups == group), number)
    ]
    slots, owner = np.empty(len(groups), dtype=np.int64), owner.copy()
    free = set(range(len(loads)))
    for part in sorted(parts, key=len, reverse=True):
        if not len(part):
            break
        group = groups[part[0]]
        slot = min(free, key=lambda s: (loads[s], owner[s] != group, s))
        free.remove(slot)
        slots[part], owner[slot] = slot, group
    return slots, owner
