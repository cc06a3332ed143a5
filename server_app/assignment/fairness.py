"""Max-min participation: raise the smallest device as far as the constraints allow.

A fleet's fastest devices would hold most experts and its smallest none. With
``floor="max-min"`` the least number of experts held by any client is maximised before
fitness is looked at. A client's share is capped by what fits on it at all, so one tiny
device does not keep the floor of all others down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from server_app.assignment.instance import Instance, Ints, Mask

__all__ = ["feasibility_of", "max_min_floor"]


def max_min_floor(instance: Instance, solve: Callable[[Instance], Mask]) -> Instance:
    """Return the instance with the highest equal floor that costs no other bound.

    Parameters
    ----------
    instance : Instance
        The integer problem; its own floor is ignored.
    solve : callable
        Finds a matrix of least violation of an instance.

    Returns
    -------
    Instance
        The same with ``floor[c] = min(t, what fits on c)``, minus its pins, for the
        highest t at which no more is violated than with t = 0.
    """
    pinned = instance.fixed.sum(axis=1)
    fits = pinned + _most_that_fit(instance)
    blank = feasibility_of(instance)

    def floor_at(share: int) -> Ints:
        return np.maximum(np.minimum(share, fits) - pinned, 0)

    def violation_at(share: int) -> int:
        trial = replace(blank, floor=floor_at(share))
        return trial.violation(solve(trial)).total(trial.placement_unit)

    accepted, refused = 0, int(fits.max(initial=0)) + 1
    least = violation_at(0)
    while refused - accepted > 1:
        share = (accepted + refused) // 2
        if violation_at(share) <= least:
            accepted = share
        else:
            refused = share
    return replace(instance, floor=floor_at(accepted))


def feasibility_of(instance: Instance) -> Instance:
    """Return an instance that asks only whether the bounds of another can be met.

    Without gains every search ends at the first assignment that meets them. A flow is
    left as it is: equal gains only make its prices, and so its arcs, harder to choose.
    """
    if instance.is_flow:
        return instance
    return replace(
        instance,
        gain=np.zeros_like(instance.gain),
        penalty=replace(instance.penalty, weight=0.0),
    )


def _most_that_fit(instance: Instance) -> Ints:
    """Return how many free experts each client can hold, smallest first."""
    order = np.argsort(instance.sizes, kind="stable")
    room = instance.room.copy()
    count = np.zeros(len(room), dtype=np.int64)
    taken = np.zeros_like(instance.free)
    for expert in order.tolist():
        able = instance.free[:, expert] & (instance.sizes[expert] <= room)
        for members in instance.exclusive:
            if expert in members:
                able &= ~taken[:, members].any(axis=1)
        taken[:, expert] = able
        room -= able * instance.sizes[expert]
        count += able
    return count
