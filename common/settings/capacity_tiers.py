"""How many experts each client may hold when the user says so: one number or tiers.

Only the notation and its apportionment live here; budgets that come from a device's
memory, time and uplink are the server's (``server_app.fleet.capacity``).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CapacityTiers:
    """Shares of clients per expert budget.

    Attributes
    ----------
    tiers : tuple[tuple[int, float], ...]
        Pairs of (experts per client, share of clients); shares sum to 1.
    """

    tiers: tuple[tuple[int, float], ...]

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read ``2`` or ``"1:0.5,2:0.3,4:0.2"``.

        Raises
        ------
        ValueError
            If a budget is not a positive integer or the shares do not sum to 1.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and not value.strip().isdigit():
            tiers = tuple(cls._tier(item) for item in value.split(","))
        elif isinstance(value, int | str) and not isinstance(value, bool):
            tiers = ((int(value), 1.0),)
        else:
            raise ValueError('an integer >= 1 or tiers such as "1:0.5,2:0.3,4:0.2"')
        if any(experts < 1 for experts, _ in tiers):
            raise ValueError("a client holds at least 1 expert")
        if any(not 0 < share <= 1 for _, share in tiers):
            raise ValueError("the share of a tier is above 0 and at most 1")
        if abs(sum(share for _, share in tiers) - 1) > 1e-6:
            raise ValueError("the shares of the tiers must sum to 1")
        return cls(tiers)

    @staticmethod
    def _tier(text: str) -> tuple[int, float]:
        experts, _, share = text.partition(":")
        try:
            return int(experts), float(share)
        except ValueError:
            raise ValueError(
                f'tier {text.strip()!r} is not EXPERTS:SHARE, as in "1:0.5,2:0.3,4:0.2"'
            ) from None

    @property
    def largest(self) -> int:
        """Largest number of experts any client may hold."""
        return max(experts for experts, _ in self.tiers)

    def budgets(self, num_clients: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Give each client its budget: largest-remainder shares, shuffled by ``rng``.

        Returns
        -------
        ndarray of int, shape (num_clients,)
        """
        quotas = np.array([share for _, share in self.tiers]) * num_clients
        counts = np.floor(quotas).astype(np.int64)
        remainders = np.argsort(-(quotas - counts), kind="stable")
        counts[remainders[: num_clients - int(counts.sum())]] += 1
        experts = np.array([experts for experts, _ in self.tiers], dtype=np.int64)
        return rng.permutation(np.repeat(experts, counts))

    def __str__(self) -> str:
        """Return the notation that parses to the same tiers."""
        if len(self.tiers) == 1:
            return str(self.tiers[0][0])
        return ",".join(f"{experts}:{share:g}" for experts, share in self.tiers)
