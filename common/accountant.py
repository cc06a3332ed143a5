"""What Gaussian releases cost together: epsilon at a given delta.

A release is a vector that one client moves by at most C, with noise of standard
deviation z C in every coordinate. Two bounds are worked out by Google's
``dp-accounting``, each of which holds, and the smaller one is told: by Rényi
divergences (RDP, Mironov, CSF 2017) and by privacy loss distributions (PLD, Sommer et
al., PoPETs 2019), rounded so that it is no less than the exact value.

Releases to all clients need no composition theorem: T of them with multiplier z are
one with z / sqrt(T), to the bit of the distribution.

Adjacent are two runs that differ in what one client sends, which is zeros in the other
(zero-out, ``REPLACE_SPECIAL``).
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from common.errors import SettingsError

DEAR = 50.0
"""Epsilon (by RDP) from which PLD is not worked out: it would take minutes, and nobody
is protected by either."""


class Release(NamedTuple):
    """One release of one round."""

    multiplier: float
    """z, the standard deviation of the noise over the sensitivity."""
    rate: float = 1.0
    """q, the chance of each client to take part, drawn in secret; 1 for everybody."""


Counts = tuple[tuple[Release, int], ...]


def quick_bound(releases: Mapping[Release, int], delta: float) -> float:
    """Return no less than :func:`epsilon_of`, by RDP alone: in milliseconds.

    Mostly a tenth to a fifth more.
    """
    counts = _counts(releases)
    return _by_rdp(counts, delta) if counts else 0.0


def epsilon_of(releases: Mapping[Release, int], delta: float) -> float:
    """Return the epsilon of all releases together; 0 for none.

    Parameters
    ----------
    releases : mapping of Release to int
        How many there were of each kind.
    delta : float
        In (0, 1).
    """
    counts = _counts(releases)
    return _epsilon_of(counts, delta) if counts else 0.0


def _counts(releases: Mapping[Release, int]) -> Counts:
    return tuple(sorted((each, n) for each, n in releases.items() if n))


@lru_cache(maxsize=64)
def _epsilon_of(counts: Counts, delta: float) -> float:
    found = _by_rdp(counts, delta)
    if not found < DEAR:
        return found
    # Seconds to load: a run without privacy does not.
    from dp_accounting.pld import PLDAccountant

    by_pld = PLDAccountant(_relation())
    for event, count in _events(counts):
        by_pld.compose(event, count)
    return min(found, float(by_pld.get_epsilon(delta)))


def _by_rdp(counts: Counts, delta: float) -> float:
    try:
        from dp_accounting.rdp import RdpAccountant
    except ImportError:
        raise SettingsError(
            "privacy needs an extra that is not installed: pip install "
            "'expertfleet[privacy]'"
        ) from None
    sampled = any(each.rate < 1 for each, _ in counts)
    # The series of the fractional orders of a sampled Gaussian need not converge.
    small = [] if sampled else [1 + n / 10 for n in range(1, 100)]
    by_rdp = RdpAccountant(
        [*small, *range(2 if sampled else 11, 64), *(2**n for n in range(6, 12))],
        _relation(),
    )
    for event, count in _events(counts):
        by_rdp.compose(event, count)
    return float(by_rdp.get_epsilon(delta))


def _events(counts: Counts) -> list[tuple[Any, int]]:
    """Return the releases as dp-accounting names them, those to everybody as one."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent

    events: list[tuple[Any, int]] = []
    precision = sum(n / each.multiplier**2 for each, n in counts if each.rate == 1)
    if precision:
        events.append((GaussianDpEvent(1 / math.sqrt(precision)), 1))
    for each, count in counts:
        if each.rate < 1:
            noise = GaussianDpEvent(each.multiplier)
            events.append((PoissonSampledDpEvent(each.rate, noise), count))
    return events


def _relation() -> Any:
    from dp_accounting import NeighboringRelation

    return NeighboringRelation.REPLACE_SPECIAL
