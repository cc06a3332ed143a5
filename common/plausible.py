"""Whether numbers can be of the scale a model was trained on.

Images of 0 to 1 given to a model of bytes are nearly black to it, and readings in
another unit are far off everything it has seen: it answers all the same, with rubbish.
``impossible`` names what cannot be, which is refused; ``doubtful`` what can be and is
odd, which is told. An image that is black, a sensor that lies still and one sample with
a rare large value are neither.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.dataset import channel_axis
from common.task import Fixed, ImageTask, Task, TextTask

FAR, ODD = 20.0, 5.0
"""Standard deviations off the mean that half of a channel's values never are, and that
they seldom are."""

BEYOND = 100.0
"""The same, where it is one channel of several: a place may differ from all others."""

FEW = 8
"""Values that say nothing of the scale of all."""

STEPS = 4.0
"""A standard deviation of so many steps of brightness or more is no scale of 0 to 1."""

DARK = 1 / 8
"""Images that never exceed this part of full brightness are odd: 32 of 255."""

SHARE = 0.05
"""Of the pixels, that a scaling filter does not drive beyond black and white."""


def impossible(task: Task, x: NDArray[Any], scaled: NDArray[Any]) -> str:
    """Return why samples cannot be of the task's scale, "" if they can.

    Parameters
    ----------
    task : Task
    x : ndarray, shape (B, *stored)
        Samples as given, at least one.
    scaled : ndarray of float32, shape (B, *input_shape)
        The same as the model would see them.

    Returns
    -------
    str
        What came and what the model expects; goes on after the samples' name.
    """
    if isinstance(task, TextTask):
        return ""
    if isinstance(task, ImageTask):
        return _brightness(task, x, scaled)
    off = _off(task, x, scaled)
    judged = np.isfinite(off)
    if scaled.size >= FEW and judged.any() and np.median(off[judged]) > FAR:
        return f"has {_range(x)}{_UNIT}"
    if scaled.size // task.num_channels >= FEW and (off > BEYOND).any():
        return _channel(task, off) + _ASKED
    return ""


_ASKED = "; give them in the unit of its training data"
_UNIT = (
    f": most are more than {FAR:g} standard deviations off what the model was trained "
    f"on{_ASKED}"
)


def doubtful(task: Task, x: NDArray[Any], scaled: NDArray[Any]) -> str:
    """Return what is odd about the scale of samples that can be used, "" for nothing.

    Parameters are those of :func:`impossible`.
    """
    if isinstance(task, TextTask):
        return ""
    if isinstance(task, ImageTask):
        most, full = float(x.max()), task.full
        if full_is_known(task) and 0 < most <= DARK * full and len(x) > 1:
            return f"never exceeds {most:g}: the brightest is {full:g} to this model"
        return ""
    off = _off(task, x, scaled)
    return _channel(task, off) if (off > ODD).any() else ""


def _channel(task: Task, off: NDArray[np.float64]) -> str:
    worst = int(np.nanargmax(off))
    return (
        f"has values in {task.channel_word} {task.channel_names[worst]!r} that are "
        f"about {off[worst]:.0f} standard deviations off what the model was trained on"
    )


def full_is_known(task: ImageTask) -> bool:
    """Whether full brightness is: where it is 1, floats may be of any range."""
    return task.full != 1


def _brightness(task: ImageTask, x: NDArray[Any], scaled: NDArray[Any]) -> str:
    full, known = task.full, full_is_known(task)
    least, most = float(x.min()), float(x.max())
    takes = f"images from 0 to {full:g}" if known else "larger numbers"
    told = f"has {_range(x)}, and the model takes {takes}"
    if x.dtype.kind == "f" and full * max(1.0, *task.normaliser.std) > STEPS:
        if least >= 0 and most <= 1 and (x != np.rint(x)).any():
            return f"{told}; multiply by {full:g}" if known else told
        small = max(-least, most) <= min(12.0, full / 2)
        if small and (x < -0.05).mean() > SHARE:
            return f"{told}; give them as they were before they were scaled"
    if not known:
        # What image files become, 0 to 1, can always be.
        beyond = max(-least, most) > 1 and _has_scale(task)
        far = beyond and (abs(scaled) > FAR).mean() > SHARE / 5
        return f"has {_range(x)}{_UNIT}" if far else ""
    if (x > 2 * full).mean() > SHARE / 5:
        in_bytes = f"; divide bytes by {255 / full:g}" if most <= 255 else ""
        return told + in_bytes
    return told if (x < -full / 10).mean() > SHARE else ""


def _has_scale(task: Task) -> bool:
    """Whether anything is known of it: numbers used as they are may be any."""
    scale = task.scale
    return isinstance(scale, Fixed) and (set(scale.mean), set(scale.std)) != ({0}, {1})


def _off(task: Task, x: NDArray[Any], scaled: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far half of each channel's values are off, in standard deviations.

    Of shape (channels,); NaN for a channel that has no value, never changes (a sensor
    that hangs), is a category, or of which no scale is known.
    """
    channels = task.num_channels
    off = np.full(channels, np.nan)
    if not _has_scale(task):
        return off
    plain = task.plain_channels or (False,) * channels
    axis = channel_axis(x.shape[1:], task.input_shape)
    given = x[:, np.newaxis] if axis is None else np.moveaxis(x, axis, 1)
    away = np.where(np.isnan(given), np.nan, abs(scaled.astype(np.float64)))
    away = np.moveaxis(away, 1, 0).reshape(channels, -1)
    for channel in range(channels):
        there = away[channel][~np.isnan(away[channel])]
        still = len(there) > 1 and not np.ptp(there)
        if len(there) and not still and not plain[channel]:
            off[channel] = np.median(there)
    return off


def _range(x: NDArray[Any]) -> str:
    return f"values from {np.nanmin(x):.4g} to {np.nanmax(x):.4g} ({x.dtype})"
