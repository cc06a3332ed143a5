"""Expert loads: targets, the deficit that remembers imbalance, and the bounds.

The load of an expert is the number of clients that held it in a round. All functions
are pure (FLEX-MoE, dynamic bounds; docs/methods.md, 1).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Lower and upper load of every expert for one round.

    Attributes
    ----------
    lower, upper : ndarray of int, shape (E,)
    tolerance : float
        The delta the band was drawn with.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    tolerance: float


def updated_deficit(
    deficit: NDArray[np.float64], load: ArrayLike, decay: float, limit: float
) -> NDArray[np.float64]:
    """Return D_e <- gamma D_e + (L* - L_e), clipped to +-limit against wind-up.

    L* is the mean of the loads that were delivered, so that clients that dropped out
    make no expert look neglected.

    Parameters
    ----------
    deficit : ndarray, shape (E,)
    load : array_like, shape (E,)
        L_e, holders whose reply was merged this round.
    decay : float
        gamma in [0, 1]; 1 is an integrator.
    limit : float
        Number of participants.
    """
    delivered = np.asarray(load, dtype=np.float64)
    return np.clip(decay * deficit + delivered.mean() - delivered, -limit, limit)


def adjusted_target(
    capacity: ArrayLike, deficit: NDArray[np.float64], gain: float
) -> NDArray[np.float64]:
    """Return clip(L* + alpha_adj D_e, 0, participants), L* = sum_c k_c / E.

    Parameters
    ----------
    capacity : array_like of int, shape (C,)
        Budgets k_c of this round's participants.
    deficit : ndarray, shape (E,)
    gain : float
        alpha_adj; 0 is the paper's ablation without deficits.

    Raises
    ------
    ValueError
        If a deficit is no finite number.
    """
    if not np.isfinite(deficit).all():  # no band would be left, and nobody asked
        raise ValueError(f"deficit is {deficit.tolist()}: expected finite numbers")
    budgets = np.asarray(capacity)
    fair = budgets.sum() / deficit.size
    return np.clip(fair + gain * deficit, 0, budgets.size)


def band(target: NDArray[np.float64], tolerance: float, participants: int) -> Bounds:
    """Return floor((1 - delta) L_e) and min(ceil((1 + delta) L_e), participants)."""
    # An edge that is whole up to rounding noise must not widen the band by one.
    lower = np.floor(np.round((1 - tolerance) * target, 9)).astype(np.int64)
    upper = np.ceil(np.round((1 + tolerance) * target, 9)).astype(np.int64)
    return Bounds(
        lower=np.clip(lower, 0, participants),
        upper=np.clip(upper, 0, participants),
        tolerance=tolerance,
    )


def lower_bounds_feasible(lower: ArrayLike, capacity: ArrayLike) -> bool:
    """Whether some assignment meets every lower bound within the budgets.

    Gale-Ryser: the j largest bounds together need no more than sum_c min(k_c, j), for
    every j. Upper bounds never conflict with lower ones, because an assignment may
    leave budgets unfilled.
    """
    wanted = np.cumsum(np.sort(np.asarray(lower))[::-1])
    budgets = np.asarray(capacity)
    available = [np.minimum(budgets, j).sum() for j in range(1, wanted.size + 1)]
    return bool((wanted <= np.array(available)).all())


def relaxations(
    target: NDArray[np.float64], tolerance: float, participants: int
) -> Iterator[Bounds]:
    """Yield the band and then wider ones; the last has no lower bound at all."""
    while tolerance < 1:
        yield band(target, tolerance, participants)
        tolerance = max(2 * tolerance, tolerance + 0.05)
    yield band(target, 1.0, participants)


def dynamic_bounds(
    capacity: ArrayLike,
    deficit: NDArray[np.float64],
    *,
    tolerance: float,
    gain: float,
) -> Bounds:
    """Return the tightest feasible band around the adjusted target.

    Parameters
    ----------
    capacity : array_like of int, shape (C,)
        Budgets k_c of this round's participants.
    deficit : ndarray, shape (E,)
    tolerance : float
        delta; wider bands are tried if no assignment fits (:func:`widened`).
    gain : float
        alpha_adj.
    """
    budgets = np.asarray(capacity)
    target = adjusted_target(budgets, deficit, gain)
    for bounds in relaxations(target, tolerance, budgets.size):
        if lower_bounds_feasible(bounds.lower, budgets):
            return bounds
    raise AssertionError("the band without lower bounds is always feasible")


def with_holders(
    bounds: Bounds,
    capacity: ArrayLike,
    target: NDArray[np.float64],
    least: int,
    layer: NDArray[np.int64],
) -> tuple[Bounds, NDArray[np.bool_]]:
    """Return bounds that give every expert ``least`` holders or none, and who has none.

    Where budgets are too small for so many holders of every expert, those with the
    highest target have them: whoever is left out builds up a deficit and is in next.

    Parameters
    ----------
    bounds : Bounds
    capacity : array_like of int, shape (C,)
        Budgets k_c of all layers together, of this round's participants.
    target : ndarray, shape (E,)
        :func:`adjusted_target`.
    least : int
    layer : ndarray of int, shape (E,)
        Layer of each expert, from 0.

    Returns
    -------
    Bounds
    ndarray of bool, shape (E,)
        Experts that nobody is to hold; at least one of each layer is not among them.
    """
    layers = int(layer.max()) + 1
    budgets = np.asarray(capacity) // layers
    holders = int(np.count_nonzero(budgets))
    if least <= 1 or not holders:
        return bounds, np.zeros(layer.size, dtype=np.bool_)
    lower, upper = bounds.lower.copy(), bounds.upper.copy()
    closed = np.ones(layer.size, dtype=np.bool_)
    wanted = min(least, holders)  # more than there are cannot be had
    for number in range(layers):
        experts = np.flatnonzero(layer == number)
        places = int(np.minimum(budgets, experts.size).sum())
        open_ = max(1, min(experts.size, places // wanted))
        # A client holds an expert once, however large its budget.
        while not lower_bounds_feasible([wanted] * open_, budgets):
            open_ -= 1
        chosen = experts[np.argsort(-target[experts], kind="stable")[:open_]]
        fair = int(np.ceil((1 + bounds.tolerance) * places / open_))
        closed[chosen] = False
        upper[chosen] = np.clip(np.maximum(upper[chosen], fair), wanted, holders)
        lower[chosen] = np.clip(lower[chosen], wanted, upper[chosen])
        # Bounds that grew by deficits may ask for too much now: the least does not.
        if not lower_bounds_feasible(lower[chosen], budgets):
            lower[chosen] = wanted
    lower[closed] = upper[closed] = 0
    found = Bounds(lower=lower, upper=upper, tolerance=bounds.tolerance)
    return found, closed


def widened(bounds: Bounds, tolerance: float) -> tuple[str, ...]:
    """Return what the run log says of a band wider than asked; empty if it is not."""
    if bounds.tolerance <= tolerance:
        return ()
    return (
        f"load-tolerance widened from {tolerance:g} to {bounds.tolerance:g}: "
        "no assignment fits the tighter band",
    )
