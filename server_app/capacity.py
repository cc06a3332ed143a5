"""How many experts each client may hold: budgets k_c from what limits it.

Pure numbers. Where they come from (tiers the user set, a cap the device declared, a
profile it measured) is the fleet's business.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def budgets(
    tiers: ArrayLike, declared_caps: ArrayLike, num_experts: int
) -> NDArray[np.int64]:
    """Return k_c: the user's tier, lowered by the device's own cap.

    Parameters
    ----------
    tiers : array_like of int, shape (C,)
        Budget the user's ``expert-capacity`` gives each client.
    declared_caps : array_like of int, shape (C,)
        Most experts the device's owner allows; 0 means not declared.
    num_experts : int
        E; no client holds more.

    Returns
    -------
    ndarray of int, shape (C,)
        At least 1 each.
    """
    caps = np.asarray(declared_caps, dtype=np.int64)
    allowed = np.where(caps > 0, caps, num_experts)
    return np.clip(np.minimum(tiers, allowed), 1, num_experts)
