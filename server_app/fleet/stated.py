"""Whether what a device states of its samples can be true of any samples.

Moments come from devices that nobody can look into: what cannot be is refused before it
is merged. What can be true may still be wrong; see ``server_app.fleet.fleet_scale``.
"""

import numpy as np
from numpy.typing import NDArray

from common.task import ImageTask, Moments, Task
from common.wire import QueryReply

LARGEST = float(np.finfo(np.float32).max)
"""Samples are float32 at most."""

STEP = 2.0**-25
"""Two values of float32 differ by a larger part of them."""

SLACK = 1e-6
"""How far sums may be off, as a part of them."""


def stated_moments(profile: QueryReply) -> Moments | None:
    """Return what a device states of its training samples; None if nothing."""
    if not profile.moments_count:
        return None
    return Moments(
        count=np.array(profile.moments_count),
        mean=np.array(profile.moments_mean),
        m2=np.array(profile.moments_m2),
        least=np.array(profile.moments_least),
        most=np.array(profile.moments_most),
    )


def impossible(moments: Moments, task: Task, samples: int) -> str:
    """Return why so many samples cannot have these moments; "" if they can.

    Parameters
    ----------
    samples : int
        Training samples of the device.
    """
    fields = {k: np.asarray(v, dtype=np.float64) for k, v in vars(moments).items()}
    wanted = (task.num_channels,)
    for name, values in fields.items():
        if values.shape != wanted:
            return (
                f"states {values.size} numbers as {name} of its samples: the task has "
                f"{task.num_channels} {task.channel_word}s"
            )
        if not (np.isfinite(values) & (abs(values) <= _limit(name))).all():
            return f"states a {name} of its samples that no float32 has"
    for channel, rule in _breaches(moments, task, samples):
        said = ", ".join(f"{k} {v[channel]:g}" for k, v in fields.items())
        where = channel_name(task, channel)
        return f"states what no samples have, {where}: {rule} ({said})"
    return ""


def _limit(name: str) -> float:
    return {"count": 2.0**53, "m2": np.inf}.get(name, LARGEST)


def _breaches(moments: Moments, task: Task, samples: int) -> list[tuple[int, str]]:
    """Return the first channel that breaks each rule."""
    count, mean, m2 = moments.count, moments.mean, moments.m2
    least, most = moments.least, moments.most
    values = samples * int(np.prod(task.input_shape)) // max(1, task.num_channels)
    reach = reach_of(moments)
    low, high = least - SLACK * reach, most + SLACK * reach
    largest = count * np.maximum(high - mean, 0) * np.maximum(mean - low, 0)
    # Both ends of the range are among the values; rounding may move the mean.
    ends = (least - mean) ** 2 + (most - mean) ** 2 - 1e-13 * reach * (most - least)
    rules = [
        (
            (count < 0) | (count != np.floor(count)) | (count > values),
            f"count must be an integer from 0 to {values}",
        ),
        (
            (count == 0) & ((mean != 0) | (m2 != 0) | (least != 0) | (most != 0)),
            "all is 0 where there is no value",
        ),
        ((least > most) | (mean < low) | (mean > high), "least <= mean <= most"),
        ((count == 1) & (least != most), "one value has no range"),
        (
            (least < most) & (most - least < STEP * reach),
            "values of float32 lie further apart",
        ),
        ((m2 < 0) | (m2 > largest * (1 + SLACK)), "m2 is beyond the range"),
        (
            (least < most) & (m2 < ends * (1 - SLACK)),
            "m2 is too small for the range",
        ),
    ]
    if isinstance(task, ImageTask):
        bright = 255 / task.full
        rules.append(
            ((least < 0) | (most > bright), f"pixels are from 0 to {bright:g}")
        )
    if (plain := task.plain_channels) is not None:
        outside = np.asarray(plain) & ((least < 0) | (most > 1))
        rules.append((outside, "a category is 0 or 1"))
    return [(int(bad.argmax()), rule) for bad, rule in rules if bad.any()]


def reach_of(moments: Moments) -> NDArray[np.float64]:
    """Return the largest absolute value, shape (channels,)."""
    return np.maximum(abs(moments.least), abs(moments.most))


def channel_name(task: Task, channel: int) -> str:
    """Return what a channel or column is called in a sentence."""
    return f"{task.channel_word} {task.channel_names[channel]!r}"
