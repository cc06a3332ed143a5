"""Moments of a device's samples, and whether a scale can be right for them.

Not here: the moments of a fleet (``common.task.scale``).
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.moments import BLOCK
from common.own.mapped import Reading
from common.task import Fixed, ImageTask, Moments, Task, TextTask

SMALL = 32
"""Bytes that never exceed it are numbers of another scale than 255, most likely."""

FAR = 10.0
"""A value is far from 0 +- 1 if it is as many times larger, or smaller."""

SENTINELS = frozenset({-99.0, -999.0, -9999.0, -99999.0})
"""Numbers that loggers write where there is no value."""

_NAMED = 3


def moments_of(x: NDArray[Any], rows: NDArray[np.int64], task: Task) -> Moments | None:
    """Return the moments of some rows, divided by ``task.full``.

    Parameters
    ----------
    x : ndarray, shape (n, *stored)
    rows : ndarray of int64
        In their order: floating-point sums depend on it.

    Returns
    -------
    Moments or None
        None for texts, and of no row.
    """
    if isinstance(task, TextTask) or not len(rows):
        return None
    if x.dtype == np.uint8:
        return _of_bytes(_counts(x, rows), task.full)
    axis = -1 if isinstance(task, ImageTask) else 1
    parts = (Moments.of(_by_channel(piece, axis)) for piece in _pieces(x, rows))
    found = Moments.merged(parts)
    if found is None or task.full == 1:
        return found
    return found.divided_by(task.full)


def notes_of(moments: Moments, task: Task) -> list[str]:
    """Return what is odd about samples of these moments, a line each."""
    notes, plain = [], task.plain_channels or (False,) * task.num_channels
    known = [c for c in range(task.num_channels) if moments.count[c] and not plain[c]]
    most = float((moments.most * task.full).max())
    if isinstance(task, ImageTask) and task.full > SMALL >= most:
        notes.append(
            f"no value above {most:g} of {task.full:g}: if {most:g} is full "
            f"brightness, the task needs bright = {most:g}; of files with 16 bits that "
            "use 12, bright = 4095"
        )
    if empty := [c for c in range(task.num_channels) if not moments.count[c]]:
        notes.append(f"no value at all: {_some([_name(task, c) for c in empty])}")
    if missing := [c for c in known if moments.least[c] in SENTINELS]:
        has = [f"{_name(task, c)} has {moments.least[c]:g}" for c in missing]
        notes.append(
            f"does it stand for no value? Then leave the cell empty: {_some(has)}"
        )
    constant = [c for c in known if moments.constant[c]]
    if moments.count.max(initial=0) > 1 and constant:
        has = [
            f"{_name(task, c)} is {moments.least[c] * task.full:g}" for c in constant
        ]
        notes.append(f"constant {task.channel_word}: {_some(has)}")
    if task.needs_moments:
        return notes
    mean, std = _scaled(moments, task)
    size = np.hypot(mean, std)
    far = [
        f"{_name(task, c)} has {mean[c]:.3g} +- {std[c]:.3g}"
        for c in known
        if size[c] > FAR or (std[c] < 1 / FAR and c not in constant)
    ]
    if far:
        notes.append(f"values far from 0 +- 1 after scaling: {_some(far)}")
    return notes


def _scaled(
    moments: Moments, task: Task
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not isinstance(task.scale, Fixed):
        return moments.mean, moments.std
    std = np.asarray(task.scale.std)
    return (moments.mean - np.asarray(task.scale.mean)) / std, moments.std / std


def _name(task: Task, channel: int) -> str:
    return f"{task.channel_word} {task.channel_names[channel]!r}"


def _some(told: list[str]) -> str:
    more = len(told) - _NAMED
    return ", ".join(told[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _pieces(x: NDArray[Any], rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """Yield the rows in order, as many at a time as have ``BLOCK`` values."""
    step, stored = max(1, BLOCK // math.prod(x.shape[1:])), Reading(x)
    for start in range(0, len(rows), step):
        yield stored(rows[start : start + step])


def _by_channel(piece: NDArray[Any], axis: int) -> NDArray[Any]:
    """Bring values whose channels are along this axis to (channels, N)."""
    return np.moveaxis(piece, axis, 0).reshape(piece.shape[axis], -1)


def _counts(x: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the bytes of images (n, height, width, channels): (channels, 256)."""
    channels = x.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for piece in _pieces(x, rows):
        for channel, count in enumerate(counts):
            values = np.ascontiguousarray(piece[..., channel]).reshape(-1)
            count += np.bincount(values, minlength=256)
    return counts


def _of_bytes(counts: NDArray[np.int64], full: float) -> Moments:
    """Return the moments of bytes from their counts, which no order changes."""
    value = np.arange(256) / full
    there = counts > 0
    count = counts.sum(axis=1).astype(np.float64)
    mean = counts @ np.arange(256) / (count * full)
    return Moments(
        count=count,
        mean=mean,
        m2=(counts * (value - mean[:, None]) ** 2).sum(axis=1),
        least=value[there.argmax(axis=1)],
        most=value[255 - there[:, ::-1].argmax(axis=1)],
    )
