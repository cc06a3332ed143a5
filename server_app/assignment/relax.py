"""What was relaxed, and why it had to be.

Budgets, bans and exclusions are physical and always hold. Everything else is soft when
it must be: load bounds, minimum holders, floors, groups, pins. The relaxation itself is
the solvers' (least total violation first, then fitness; one unit is one placement, or
the mean client weight for weighted loads). Here it is put into words: each bound missed
and by how much, and for transportation problems the set of experts whose bounds
contradict the budgets (a Hall set, the minimum cut of the flow).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server_app.assignment.instance import Instance, Mask, Violation
from server_app.assignment.solution import Infeasibility

__all__ = ["explain_violation", "relaxations"]

#: Names in one message, and messages of one kind about clients, before they are cut.
_NAMED = 8


def relaxations(instance: Instance, matrix: Mask) -> tuple[str, ...]:
    """Say in one line per bound what a matrix does not meet.

    Parameters
    ----------
    instance : Instance
        The integer problem.
    matrix : ndarray of bool, shape (C, E)
        Free pairs held.

    Returns
    -------
    tuple of str
        Empty when every bound and every pin holds.
    """
    missed = instance.violation(matrix)
    quantum = instance.quantum
    load = (instance.load(matrix) + instance.fixed_load) * quantum
    lines = _shortened(list(instance.notes))
    for name, amount, sign in (("lower", missed.short, 1), ("upper", missed.over, -1)):
        for expert in np.flatnonzero(amount).tolist():
            by = amount[expert] * quantum
            lines.append(
                f"{name} of expert {expert} missed by {by:g}: load {load[expert]:g}, "
                f"wanted {load[expert] + sign * by:g}"
            )
    lines.extend(
        f"min_holders of expert {expert} missed by {missed.holders[expert]}"
        for expert in np.flatnonzero(missed.holders).tolist()
    )
    short = np.flatnonzero(missed.floor).tolist()
    lines += _shortened(
        [f"floor of client {c} missed by {missed.floor[c]}" for c in short]
    )
    lines += _shortened(
        [
            f"client {client} holds no expert of group {instance.labels[group]}"
            for client, group in np.argwhere(missed.groups).tolist()
        ]
    )
    return tuple(lines)


def explain_violation(instance: Instance, matrix: Mask) -> Infeasibility | None:
    """Explain why a matrix of least violation cannot meet every bound.

    Parameters
    ----------
    instance : Instance
        The integer problem.
    matrix : ndarray of bool, shape (C, E)
        Free pairs of an assignment with the least violation found.

    Returns
    -------
    Infeasibility or None
        None when nothing is violated.
    """
    missed = instance.violation(matrix)
    if not missed.total(1):
        return None
    conflicts: list[str] = []
    if instance.is_flow:
        conflicts += _scarce(instance, matrix, missed)
        conflicts += _crowded(instance, matrix, missed)
    conflicts += _arithmetic(instance, missed)
    if not conflicts:
        total = missed.total(instance.placement_unit) * instance.quantum
        conflicts.append(f"no assignment found misses less than {total:g} in all")
    return Infeasibility(
        conflicts=tuple(conflicts),
        short=missed.short.astype(np.float64) * instance.quantum,
        over=missed.over.astype(np.float64) * instance.quantum,
    )


def _scarce(instance: Instance, matrix: Mask, missed: Violation) -> list[str]:
    """Name the experts that together need more placements than clients can give."""
    if not missed.short.any():
        return []
    inside = missed.short > 0
    gives = _could_swap(instance, matrix)
    while True:
        grown = inside | gives[:, inside].any(axis=1)
        if (grown == inside).all():
            break
        inside = grown
    need = int(instance.lower[inside].sum())
    usable = (instance.free & inside).sum(axis=1)
    room = int(np.minimum(instance.quota, usable).sum())
    if need <= room:
        return []
    return [
        f"the lower bounds of {_named('expert', inside)} take {need} placements, but "
        f"clients have room for {room} there: {need - room} too many"
    ]


def _crowded(instance: Instance, matrix: Mask, missed: Violation) -> list[str]:
    """Name the experts whose upper bounds cannot take what clients must hold."""
    hungry = missed.floor > 0
    open_pairs = instance.free & ~matrix
    inside = (missed.over > 0) | open_pairs[hungry].any(axis=0)
    if not (hungry.any() or missed.over.any()):
        return []
    takes = _could_swap(instance, matrix)
    while True:
        grown = inside | takes[inside].any(axis=0)
        if (grown == inside).all():
            break
        inside = grown
    outside = (instance.free & ~inside).sum(axis=1)
    must = int(np.maximum(instance.floor - outside, 0).sum())
    room = int(np.maximum(instance.upper[inside], 0).sum())
    if must <= room:
        return []
    return [
        f"the clients' floors take {must} placements on {_named('expert', inside)}, "
        f"but upper bounds leave room for {room} there: {must - room} too many"
    ]


def _could_swap(instance: Instance, matrix: Mask) -> Mask:
    """Return (E, E): some client holding the first could hold the second instead."""
    held = matrix.astype(np.float32)
    able = (instance.free & ~matrix).astype(np.float32)
    swaps: Mask = (held.T @ able) > 0
    return swaps


def _arithmetic(instance: Instance, missed: Violation) -> list[str]:
    """Check each missed bound on its own against what exists at all."""
    lines = []
    most = (instance.free * instance.weights[:, None]).sum(axis=0)
    for expert in np.flatnonzero(missed.short).tolist():
        if most[expert] < instance.lower[expert]:
            lines.append(
                f"expert {expert} needs load "
                f"{instance.lower[expert] * instance.quantum:g} but the clients that "
                f"may hold it carry {most[expert] * instance.quantum:g}"
            )
    crossed = instance.lower > instance.upper
    for expert in np.flatnonzero(crossed & (instance.upper >= 0)).tolist():
        lines.append(f"no whole load lies within the band of expert {expert}")
    for expert in np.flatnonzero(instance.upper < 0).tolist():
        lines.append(f"pins alone exceed the upper bound of expert {expert}")
    if instance.counted and not instance.is_flow and missed.short.any():
        need = int((instance.lower * instance.sizes).sum())
        room = int(instance.room.sum())
        if need > room:
            lines.append(
                f"lower bounds need {need / room:.2f} times the budgets of all clients"
                if room
                else "lower bounds need budget, and no client has any"
            )
    able = instance.free.sum(axis=1)
    poor = np.flatnonzero((missed.floor > 0) & (able < instance.floor))
    if poor.size:
        mask = np.zeros(len(able), dtype=np.bool_)
        mask[poor] = True
        lines.append(f"{_named('client', mask)} may hold fewer experts than the floor")
    return lines


def _shortened(lines: list[str]) -> list[str]:
    """Return the first lines and how many more: a fleet has many clients."""
    if len(lines) <= _NAMED:
        return lines
    return [*lines[:_NAMED], f"... and {len(lines) - _NAMED} more like this"]


def _named(kind: str, mask: NDArray[np.bool_]) -> str:
    """Return "experts 1, 4" or, when there are many, "the 30 experts 0, 1, ..."."""
    indices = np.flatnonzero(mask).tolist()
    names = ", ".join(str(index) for index in indices[:_NAMED])
    if len(indices) == 1:
        return f"{kind} {names}"
    if len(indices) > _NAMED:
        return f"the {len(indices)} {kind}s {names}, ..."
    return f"{kind}s {names}"
