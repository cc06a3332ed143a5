"""One scale for the samples of all devices: what they state is checked and merged.

Every device states the moments of its own training samples (``common.task.Moments``).
No device may spoil the scale of the others: one whose numbers reach a thousand times as
far as those of the device in the middle, and would leave the others a hundredth of
their spread, is told so and stays out.

When the scale is worked out, and where it is kept, is up to
``server_app.fleet.agreement``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.task import Moments, Task
from server_app.fleet.stated import channel_name, reach_of

TENFOLD = 8.0
"""From here on a range differs about tenfold: g and m/s^2 by 9.8, and samples vary."""

WILD = 1000.0
"""A range that differs as much is of another unit, or a mistake."""

SQUEEZED = 100.0
"""Others are spoilt if one device brings their values as many times nearer together."""

FAR = 10.0
"""A device's values are far from 0 +- 1 after scaling if they are as large."""

_NAMED = 3

Channels = NDArray[np.float64]


def misfits(said: Mapping[int, Moments], task: Task) -> dict[int, str]:
    """Return who would spoil the scale of the others, with the reason.

    Parameters
    ----------
    said : mapping of int to Moments
        By node: of devices that are to have one scale.
    """
    if len(said) < 2:
        return {}
    worst = _worst([*said.values()], task)
    fit = [node for node, ratio in zip(said, worst, strict=True) if ratio < WILD]
    fit = fit or [[*said][int(worst.argmin())]]
    others = FleetRange.of([said[node] for node in fit])
    found = {n: others.misfit(m, task) for n, m in said.items() if n not in fit}
    return {node: reason for node, reason in found.items() if reason}


def _worst(said: Sequence[Moments], task: Task) -> Channels:
    """Return how many times as far as usual each device reaches, at most."""
    usual = FleetRange.of(said).reach
    ratios = [_times(reach_of(moments), usual, task).max(initial=0) for moments in said]
    return np.array(ratios)


@dataclass(frozen=True, kw_only=True, eq=False)
class FleetRange:
    """What the numbers of the devices are that have one scale.

    Attributes
    ----------
    moments : Moments
        Of all their training samples together.
    least, most : ndarray of float64, shape (channels,)
        Range of the device in the middle, by the largest absolute value; of two the
        smaller. 0 where no device has values but 0.
    """

    moments: Moments
    least: Channels
    most: Channels

    @classmethod
    def of(cls, said: Sequence[Moments]) -> Self:
        """Return it for one device at least; sums are in this order."""
        merged = Moments.merged(said)
        if merged is None:
            raise ValueError("no device states moments")
        reach = np.stack([reach_of(each) for each in said])
        ordered = np.argsort(np.where(reach > 0, reach, np.inf), axis=0, kind="stable")
        place = (np.maximum((reach > 0).sum(axis=0), 1) - 1) // 2
        middle = np.take_along_axis(ordered, place[None], axis=0)

        def of_the_middle(values: list[Channels]) -> Channels:
            taken: Channels = np.take_along_axis(np.stack(values), middle, axis=0)[0]
            return taken

        return cls(
            moments=merged,
            least=of_the_middle([each.least for each in said]),
            most=of_the_middle([each.most for each in said]),
        )

    @property
    def reach(self) -> Channels:
        """Largest absolute value of the device in the middle, shape (channels,)."""
        return np.maximum(abs(self.least), abs(self.most))

    def misfit(self, moments: Moments, task: Task) -> str:
        """Return why a device cannot have the scale of these; "" if it can."""
        times = _times(reach_of(moments), self.reach, task)
        together, before = FleetRange.of([self.moments, moments]).moments, self.moments
        squeezed = ~before.constant & (together.std > SQUEEZED * before.std)
        times = np.where(squeezed, times, 0)
        channel = int(times.argmax()) if times.size else 0
        if not times.size or times[channel] < WILD:
            return ""
        return (
            f"{self._differs(moments, channel, task)}: one scale cannot fit both; give "
            "it the same unit, or the task a fixed scale"
        )

    def warning(self, moments: Moments, task: Task) -> str:
        """Return why the scale may be wrong for a device that has it; "" if it fits."""
        its, usual = reach_of(moments), self.reach
        span, usual_span = moments.most - moments.least, self.most - self.least
        pairs = ((its, usual), (usual, its), (span, usual_span), (usual_span, span))
        odd = np.max([_times(a, b, task) for a, b in pairs], axis=0)
        if found := np.flatnonzero(odd >= TENFOLD).tolist():
            first = self._differs(moments, found[0], task)
            return (
                f"its range differs tenfold from the fleet's: {first}{_more(found, 1)}"
            )
        std = np.where(self.moments.constant, 1, self.moments.std)
        mean, spread = (moments.mean - self.moments.mean) / std, moments.std / std
        size = np.where(_plain(task) | (moments.count == 0), 0, np.hypot(mean, spread))
        if not (found := np.flatnonzero(size > FAR).tolist()):
            return ""
        told = [
            f"{channel_name(task, c)} has {mean[c]:.3g} +- {spread[c]:.3g}"
            for c in found[:_NAMED]
        ]
        rest = _more(found, _NAMED)
        return f"values far from 0 +- 1 after scaling: {', '.join(told)}{rest}"

    def constant(self, task: Task) -> str:
        """Return which channels have one value on all devices; "" if none has."""
        same = self.moments.constant & ~_plain(task) & (self.moments.count > 1)
        if not (found := np.flatnonzero(same).tolist()):
            return ""
        told = [
            f"{task.channel_names[c]!r} is {self.moments.least[c] * task.full:g}"
            for c in found[:_NAMED]
        ]
        word, rest = task.channel_word, _more(found, _NAMED)
        return f"constant {word} on all devices: {', '.join(told)}{rest}"

    def _differs(self, moments: Moments, channel: int, task: Task) -> str:
        def spread(least: Channels, most: Channels) -> str:
            low, high = least[channel] * task.full, most[channel] * task.full
            return f"from {low:.4g} to {high:.4g}"

        its, usual = spread(moments.least, moments.most), spread(self.least, self.most)
        return f"its {channel_name(task, channel)} is {its}, that of others {usual}"

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return asdict(self)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """Return what :meth:`state` described, bit for bit."""
        return cls(**{**state, "moments": Moments(**state["moments"])})


def _times(its: Channels, usual: Channels, task: Task) -> Channels:
    """Return how many times as large it is, per channel; 0 where there is no scale."""
    known = (usual > 0) & ~_plain(task)
    return np.where(known, its / np.where(known, usual, 1), 0)


def _plain(task: Task) -> NDArray[np.bool_]:
    return np.array(task.plain_channels or [False] * task.num_channels, dtype=np.bool_)


def _more(channels: Sequence[int], told: int) -> str:
    more = len(channels) - told
    return f" and {more} more" if more > 0 else ""
