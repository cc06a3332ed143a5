"""APFL: the shared model and one's own, mixed; docs/methods.md, 4.

APFL (Deng et al., arXiv 2003.13461, Algorithm 1 and Eq. 10 and 11); every round, w the
model received, v_c and alpha_c the client's own, v' = alpha_c v_c + (1 - alpha_c) w_c::

    at each step, on the same batch:
        w_c <- w_c - lr grad F_c(w_c)                              (sent)
        v_c <- v_c - lr alpha_c grad F_c(v')                       (kept)
    once a round: alpha_c <- clip(alpha_c - lr <v_c - w_c, grad F_c(v')>, 0, 1)
    w   <- w + sum_c (n_c / n) (w_c - w)

The client answers with v', the server with w. alpha starts at 0.5 and is learnt on the
first batch of a round; alpha = 0 without learning is FedAvg, alpha = 1 local training
beside it. v_c starts from the first w received [C].
"""

from pydantic import Field

from common.local_method import LocalMethod
from server_app.strategies.base import StrategyOptions
from server_app.strategies.dense import FedAvg


class APFL(FedAvg):
    """FedAvg; clients use a mixture of it and models of their own."""

    name = "apfl"
    private = "a model of its own, and its weight"
    source = "APFL, arXiv 2003.13461"
    use_when = "each device shall mix the shared model with one of its own"
    cost = "messages of fedavg; 1.7 times its memory, twice its training"

    class Options(StrategyOptions):
        """APFL's own settings."""

        alpha: float = Field(
            0.5, ge=0, le=1, description="weight of the own model at the start, 0 to 1"
        )
        adaptive: bool = Field(True, description="whether alpha is learnt")

    def local_method(self) -> LocalMethod:
        """Train a second model on the same batches."""
        return LocalMethod(
            method="apfl", mixing=self.options.alpha, adaptive=self.options.adaptive
        )
