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
    "ditto": 5,  # that, what it kept, and what reading and the first training leave
    "apfl": 6,  # a second model, the mixture, gradients, what it kept, what is read
}
"""Copies of the model a device holds beside those of plain training, without what an
optimizer keeps of each model it trains; of Ditto three and of APFL one are
measured (``benchmarks/device_memory.py``), the others are counted."""

PULLED = 4
"""And where it is pulled to another: that one, the distance to it, the square of that
and its gradient, each as large as the model where one tensor is most of it."""

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
    proximal : float
        mu of mu/2 ||w - w_t||^2 in every loss (FedProx).
    candidates : int
        Models received, of which the one that fits best is trained (IFCA).
    mixing : float
        alpha of the first round (``apfl``).
    adaptive : bool
        Whether alpha is learnt (``apfl``).
    """

    method: MethodName = "plain"
    personal_epochs: int = 0
    pull: float = 0.0
    proximal: float = 0.0
    candidates: int = 1
    mixing: float = 0.0
    adaptive: bool = True

    @property
    def keeps(self) -> bool:
        """Whether a client keeps a model of its own beside private parts."""
        return self.method in ("ditto", "apfl")

    @property
    def more_copies(self) -> int:
        """Copies of the model in memory beside those of plain training.

        Without the candidates it does not train.
        """
        pulled = PULLED if self.pull or self.proximal else 0
        return MORE_COPIES[self.method] + pulled

    @property
    def models(self) -> int:
        """Models that are trained at the same time, each by an optimizer of its own."""
        return 2 if self.method == "apfl" else 1

    def passes(self, local_epochs: int) -> float:
        """Return how often each sample is trained on in a round, in steps of plain.

        A head that is trained alone costs the way forward through what is frozen, and
        so does every candidate that is tried.
        """
        tried = FORWARD * self.candidates if self.candidates > 1 else 0
        match self.method:
            case "fine-tune" | "ditto":
                more: float = self.personal_epochs
            case "alternating":
                more = FORWARD * self.personal_epochs
            case "apfl":
                more = local_epochs
            case "plain":
                more = 0
        return local_epochs + more + tried


PLAIN = LocalMethod()
