"""Sums of a round with noise: client-level differential privacy of partial payloads.

docs/methods.md, 9. All that a client ships in a round, whatever parts these are, is one
vector. It is shortened to a norm of at most C and counts once, with weight 1. Part p,
which m_p clients were *planned* to hold, moves by::

    (S_p + N(0, (z C)^2 I)) / m_p        S_p = sum of its holders' shortened deltas

S, over all parts, differs by at most C between two fleets of which one has a client
whose updates are zeros: all parts together are one Gaussian mechanism of multiplier z.
m_p is fixed before anybody has answered, and noise is added whoever answers, so neither
says anything about a reply. A part that nobody was to hold stays as it is.

The bound holds for what is summed, and not only in real numbers: see
:mod:`common.gaussian_mechanism`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from common.gaussian_mechanism import (
    MOST_NOISE,
    RandomBytes,
    clipped_units,
    noise_units,
)
from server_app.merging.exact_sums import ExactSums, Vector
from server_app.merging.means import NONE, Coordinates, PartMeans


class PrivateSums(PartMeans):
    """Sums of one round, to each of which a client contributes once and at most C.

    A strategy adds to them as to any other; its weights are passed over.

    Parameters
    ----------
    clip : float
        C.
    multiplier : float
        z.
    random_bytes : callable
        Where noise comes from. It has to be secret and unpredictable; anything but the
        operating system's is for tests.
    """

    def __init__(
        self, clip: float, multiplier: float, random_bytes: RandomBytes = os.urandom
    ) -> None:
        super().__init__()
        if not 0 < clip * multiplier <= MOST_NOISE:
            raise ValueError(f"z C = {clip * multiplier:g}, at most {MOST_NOISE:g}")
        self._clip, self._multiplier = clip, multiplier
        self._random_bytes = random_bytes
        self._holders: Mapping[str, float] | None = None
        self._sums: dict[str, ExactSums] = {}
        self._reply: dict[str, Vector] | None = None
        self.norms: list[float] = []

    def expect(self, sizes: Mapping[str, int], holders: Mapping[str, float]) -> None:
        """Fix what the round is of, before anybody has answered.

        Parameters
        ----------
        sizes : mapping of str to int
            Values of every part that is planned for somebody.
        holders : mapping of str to float
            m_p, above 0: how many are planned to hold each, or expected to.
        """
        self.norms = []
        self._holders = dict(holders)
        self._sums = {part: ExactSums(sizes[part]) for part in holders}

    @contextmanager
    def whole(self, ordered: Mapping[str, int] = NONE) -> Iterator[None]:
        """Take what is added within as the one contribution of one client."""
        self._reply = {}
        try:
            yield
            contribution = self._checked(self._reply)
        finally:
            self._reply = None
        norm, units = clipped_units(contribution, self._clip)
        self.norms.append(norm)
        for part, values in units.items():
            self._sums[part].add_units(values)

    def add(
        self, part: str, vector: Vector, weight: float, at: Coordinates | None = None
    ) -> None:
        """Take a part of a client's contribution; every one counts alike."""
        if self._reply is None:
            raise RuntimeError("a contribution outside of a reply")
        if part in self._reply or at is not None:
            raise ValueError(f"{part} is added twice, or only in part")
        self._reply[part] = vector

    def _checked(self, reply: dict[str, Vector]) -> dict[str, Vector]:
        if strangers := sorted(reply.keys() - self._sums.keys()):
            raise ValueError(f"{strangers[0]} was planned for nobody")
        for part, vector in reply.items():
            if vector.shape != (self._sums[part].size,):
                raise ValueError(
                    f"{part} has shape {vector.shape}, expected "
                    f"({self._sums[part].size},)"
                )
        return reply

    def apply(self, model: dict[str, Vector]) -> None:
        """Add sum and noise, over the planned holders, to every part; then be empty."""
        if self._holders is None:
            raise RuntimeError("no round was planned")
        holders, self._holders = self._holders, None
        deviation = self._clip * self._multiplier
        while self._sums:
            part, sums = self._sums.popitem()
            sums.add_units(noise_units(sums.size, deviation, self._random_bytes))
            delta = sums.use_up(holders[part])
            model[part] = np.add(model[part], delta, out=delta)

    def clear(self) -> None:
        """Drop what was added; nothing can be before the next round is planned."""
        self._holders, self._sums, self.norms = None, {}, []
