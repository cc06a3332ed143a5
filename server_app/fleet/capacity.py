"""How many experts each client may hold: budgets k_c from what limits it.

Pure numbers. What one, two, ... experts cost is ``common.cost``; what a device has
is in its profile; which of the two limits count is ``server_app.fleet.budget``.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def budgets(
    tiers: ArrayLike,
    declared_caps: ArrayLike,
    num_experts: int,
    *limits: ArrayLike,
) -> NDArray[np.int64]:
    """Return k_c of each layer: the cap a device declares, else its tier or less.

    Parameters
    ----------
    tiers : array_like of int, shape (C,)
        Budget the user's ``expert-capacity`` gives each client.
    declared_caps : array_like of int, shape (C,)
        Experts the owner says the device can hold; 0 means not declared. The owner's
        word wins over the tier and over everything measured.
    num_experts : int
        E; no client holds more.
    *limits : array_like, shape (C,)
        What each resource affords; infinity where it is unknown or plentiful.

    Returns
    -------
    ndarray of int, shape (C,)
        At most E each; 0 where a limit affords not even one expert.
    """
    caps = np.asarray(declared_caps, dtype=np.int64)
    within = np.asarray(tiers, dtype=np.float64)
    for limit in limits:
        within = np.minimum(within, limit)
    chosen = np.where(caps > 0, caps, within)
    return np.minimum(chosen, num_experts).astype(np.int64)


def affordable(available: float | None, costs: ArrayLike, margin: float = 0.0) -> float:
    """Return how many experts one resource affords (docs/methods.md, 2).

    Parameters
    ----------
    available : float or None
        Bytes of memory, operations in the time there is, or bytes that can be sent in
        the time there is; None means unknown, which limits nothing.
    costs : array_like, shape (E,)
        What 1 to E experts need of it, in the same unit, not decreasing.
    margin : float
        Safety margin: the share that is left unused.

    Returns
    -------
    float
        A whole number from 0 to E, or infinity where unknown.
    """
    if available is None:
        return float("inf")
    affordable_cost = (1 - margin) * available
    return float(np.searchsorted(np.asarray(costs), affordable_cost, side="right"))
