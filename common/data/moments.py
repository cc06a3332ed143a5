"""Number, mean, spread and range of samples, per channel or column.

They merge exactly as if all samples lay in one place (Chan, Golub and LeVeque, 1979):
blocks of one file, or what the devices of a fleet say of theirs. What a mean and a
standard deviation are then used for is in ``common.task.scale`` and, for a file of the
user's, in ``npz``.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**18
"""Values that are looked at together: a few megabytes in float64."""

STEADY = 2.0**-40
"""A channel whose values differ by less than this part of them is constant: the rest
is what adding in another order leaves."""

DIGITS = 7
"""Significant digits of a scale. It must not depend on the order in which a machine
adds, and float32 has no more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Number, mean, sum of squared deviations and range of one place's samples.

    Attributes
    ----------
    count : ndarray of float64, shape (channels,)
        Values there are: pixels, steps or cells; missing ones are not counted.
    mean, m2, least, most : ndarray of float64, shape (channels,)
        0 where there are none.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Moments":
        """Return the moments of values of shape (channels, N); NaN is left out."""
        x = np.asarray(values, dtype=np.float64)
        there = ~np.isnan(x)
        count = there.sum(axis=1).astype(np.float64)
        safe = np.maximum(count, 1)
        mean = np.where(there, x, 0).sum(axis=1) / safe
        m2 = np.where(there, x - mean[:, None], 0)
        any_there = count > 0
        least = np.where(there, x, np.inf).min(axis=1, initial=np.inf)
        most = np.where(there, x, -np.inf).max(axis=1, initial=-np.inf)
        return cls(
            count=count,
            mean=mean,
            m2=(m2 * m2).sum(axis=1),
            least=np.where(any_there, least, 0),
            most=np.where(any_there, most, 0),
        )

    @classmethod
    def of_samples(cls, x: NDArray[Any], axis: int | None) -> "Moments":
        """Return the moments of samples as stored, without a float copy of them all.

        Parameters
        ----------
        x : ndarray, shape (N, *stored)
            Numbers of any type, N at least 1.
        axis : int or None
            Of ``x``: what has a mean of its own for each entry. None: one for all.
        """
        total = cls.merged(
            cls.of(np.moveaxis(rows, axis, 0).reshape(rows.shape[axis], -1))
            if axis is not None
            else cls.of(rows.reshape(1, -1))
            for rows in blocks(x)
        )
        if total is None:
            raise ValueError("there are no samples")
        return total

    @classmethod
    def merged(cls, parts: Iterable["Moments"]) -> "Moments | None":
        """Return the moments of all parts together, in their order; None of none."""
        total: Moments | None = None
        for part in parts:
            total = part if total is None else total._with(part)
        return total

    def _with(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        safe = np.maximum(count, 1)
        apart = other.mean - self.mean
        mine, its = self.count > 0, other.count > 0
        both = mine & its
        return Moments(
            count=count,
            mean=np.where(
                mine,
                self.mean + np.where(its, apart * other.count / safe, 0),
                other.mean,
            ),
            m2=self.m2
            + other.m2
            + np.where(both, apart * apart * self.count * other.count / safe, 0),
            least=np.where(
                both,
                np.minimum(self.least, other.least),
                np.where(mine, self.least, other.least),
            ),
            most=np.where(
                both,
                np.maximum(self.most, other.most),
                np.where(mine, self.most, other.most),
            ),
        )

    def divided_by(self, number: float) -> "Moments":
        """Return the moments of the same samples divided by a number above 0."""
        return Moments(
            count=self.count,
            mean=self.mean / number,
            m2=self.m2 / number**2,
            least=self.least / number,
            most=self.most / number,
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """Return the standard deviation of every channel; 0 where it is constant."""
        return np.sqrt(self.m2 / np.maximum(self.count, 1))

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Return which channels have one value everywhere, or none."""
        size = np.maximum(abs(self.least), abs(self.most))
        return ~(self.most - self.least > STEADY * size)


def blocks(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Walk over samples, as many at a time as have ``BLOCK`` values."""
    rows = max(1, BLOCK // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), rows):
        yield x[start : start + rows]


def standardising(
    moments: Moments, plain: Sequence[bool] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std that bring samples with these moments to 0 +- 1.

    Parameters
    ----------
    plain : sequence of bool, shape (channels,), optional
        Channels that stay as they are: the ones and zeros of a category.

    Returns
    -------
    mean, std : tuple of float
        Of ``DIGITS`` digits, those of a mean counted from the first of its std: a small
        change of large numbers is kept. A constant channel has std 1.
    """
    std = np.where(moments.constant, 1.0, moments.std)
    pairs = [_rounded(*each) for each in zip(moments.mean, std, strict=True)]
    if plain is not None:
        pairs = [
            (0.0, 1.0) if stays else pair
            for stays, pair in zip(plain, pairs, strict=True)
        ]
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def _rounded(mean: float, std: float) -> tuple[float, float]:
    std = float(f"{std:.{DIGITS - 1}e}")
    places = DIGITS - 1 - math.floor(math.log10(std))
    return round(float(mean), places) + 0.0, std
