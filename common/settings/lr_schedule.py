"""How the learning rate goes over the rounds: the notation, and the rate of a round.

A function of the round and the settings alone: every device has the same rate, and a
resumed run has the rates of one that was never stopped.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

KINDS = "constant, cosine, cosine:LAST, step or step:ROUNDS:FACTOR"


@dataclass(frozen=True, kw_only=True)
class LRSchedule:
    """The rate of a round as a share of ``lr``.

    Attributes
    ----------
    kind : {"constant", "cosine", "step"}
    last : float
        What the cosine falls to, in [0, 1]; it would get there in the round after the
        last, so that every round trains.
    rounds, factor : int, float
        A step multiplies the rate by ``factor`` after so many rounds.
    """

    kind: Literal["constant", "cosine", "step"] = "constant"
    last: float = 0.0
    rounds: int = 10
    factor: float = 0.5

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``constant``, ``cosine``, ``cosine:0.1``, ``step`` or ``step:10:0.5``.

        Raises
        ------
        ValueError
            If it is none of these.
        """
        kind, *numbers = text.strip().split(":")
        try:
            match kind, numbers:
                case (("constant" | "cosine" | "step"), []):
                    return cls(kind=kind)
                case "cosine", [last] if 0 <= float(last) <= 1:
                    return cls(kind="cosine", last=float(last))
                case "step", [rounds, factor] if (
                    int(rounds) >= 1 and 0 < float(factor) <= 1
                ):
                    return cls(kind="step", rounds=int(rounds), factor=float(factor))
        except ValueError:  # of a number that is none
            pass
        raise ValueError(
            f"expected {KINDS}, with LAST from 0 to 1, whole ROUNDS of at least 1 and "
            "FACTOR above 0 and at most 1"
        )

    def share(self, server_round: int, num_rounds: int, warmup: int = 0) -> float:
        """Return the rate of a round as a share of the full one, above 0 to 1.

        Parameters
        ----------
        server_round : int
            From 1; what is outside a round counts as the first.
        num_rounds : int
            Of the run.
        warmup : int
            First rounds, fewer than all: round r of W has r / (W + 1), and what comes
            after them is scheduled as if it were all.
        """
        server_round = min(max(server_round, 1), num_rounds)
        if server_round <= warmup:
            return server_round / (warmup + 1)
        done = server_round - 1 - warmup
        match self.kind:
            case "cosine":
                fallen = (1 + math.cos(math.pi * done / (num_rounds - warmup))) / 2
                return self.last + (1 - self.last) * fallen
            case "step":
                return self.factor ** (done // self.rounds)
        return 1.0
