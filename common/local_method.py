"""What a client does in a round beside plain training, and what that costs it.

The methods themselves are in ``client_app.local``; an order names one
(:class:`common.wire.TrainOrder`), a strategy chooses it.
"""

from dataclasses import dataclass
from typing import Literal

MethodName = Literal["plain", "fine-tune", "alternating", "ditto", "apfl"]

MORE_COPIES: dict[MethodName, int] = {
    "plain": 0,
    "alternating": 0,
    "fine-tune": 1,  # the change that is sent
    "ditto": 2,  # and what it is pulled to
    "apfl": 5,  # and a second model with gradients and momentum, and their mixture
}
"""Copies of the model a device holds beside those of plain training."""

FORWARD = 1 / 3
"""Share of a step of training that goes forward only."""


@dataclass(frozen=True, kw_only=True)
class LocalMethod:
    """One method with its numbers; fields of an order.

    Attributes
    ----------
    method : MethodName
    personal_epochs : int
        Epochs of what stays with the client: of all (``fine-tune``), of its private
        parts (``alternating``), of its own model (``ditto``).
    pull : float
        lambda of lambda/2 ||v - w||^2 (``ditto``).
    mixing : float
        alpha of the first round (``apfl``).
    adaptive : bool
        Whether alpha is learnt (``apfl``).
    """

    method: MethodName = "plain"
    personal_epochs: int = 0
    pull: float = 0.0
    mixing: float = 0.0
    adaptive: bool = True

    @property
    def keeps(self) -> bool:
        """Whether a client keeps a model of its own beside private parts."""
        return self.method in ("ditto", "apfl")

    @property
    def more_copies(self) -> int:
        """Copies of the model in memory beside those of plain training."""
        return MORE_COPIES[self.method]

    def passes(self, local_epochs: int) -> float:
        """Return how often each sample is trained on in a round, in steps of plain.

        A head that is trained alone costs the way forward through what is frozen.
        """
        match self.method:
            case "fine-tune" | "ditto":
                return local_epochs + self.personal_epochs
            case "alternating":
                return local_epochs + FORWARD * self.personal_epochs
            case "apfl":
                return 2 * local_epochs
        return local_epochs


PLAIN = LocalMethod()
