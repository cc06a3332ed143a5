"""How many experts each client may hold: budgets k_c from what limits it.

Pure numbers. Where they come from (tiers the user set, a cap the device declared, a
profile it reported, times the server saw) is the caller's business.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def budgets(
    tiers: ArrayLike, declared_caps: ArrayLike, num_experts: int
) -> NDArray[np.int64]:
    """Return k_c: the cap a device declares, else the tier the user gave it.

    Parameters
    ----------
    tiers : array_like of int, shape (C,)
        Budget the user's ``expert-capacity`` gives each client.
    declared_caps : array_like of int, shape (C,)
        Experts the device says it can hold; 0 means not declared.
    num_experts : int
        E; no client holds more.

    Returns
    -------
    ndarray of int, shape (C,)
        1 to E each.
    """
    caps = np.asarray(declared_caps, dtype=np.int64)
    return np.clip(np.where(caps > 0, caps, tiers), 1, num_experts)


def resource_budget(
    available: ArrayLike, cost_per_expert: float, margin: float = 0.0
) -> NDArray[np.float64]:
    """Return how many experts one resource allows (METHODS 2, capacity profile).

    Parameters
    ----------
    available : array_like, shape (C,)
        Bytes of memory, seconds times operations per second, or seconds times bytes
        per second of uplink; 0 means unknown, which limits nothing.
    cost_per_expert : float
        What one expert needs of it, in the same unit.
    margin : float
        Safety margin: the share that is left unused.

    Returns
    -------
    ndarray, shape (C,)
        Whole numbers, infinity where unknown.
    """
    amount = np.asarray(available, dtype=np.float64)
    if cost_per_expert <= 0:
        return np.full(amount.shape, np.inf)
    allowed = np.floor((1 - margin) * amount / cost_per_expert)
    return np.where(amount > 0, allowed, np.inf)


def profile_budgets(
    caps: ArrayLike, *resources: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return k_c = max(1, min(cap, every resource's budget)), shape (C,)."""
    limits = [np.asarray(caps, dtype=np.float64), *resources]
    return np.maximum(1, np.min(limits, axis=0)).astype(np.int64)
