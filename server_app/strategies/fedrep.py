"""FedRep: a head for the shared body, then the body for it; docs/methods.md, 4.

FedRep (Collins et al., ICML 2021, arXiv 2102.07078, Algorithm 1); every round, with
phi the representation (body) and h_c the head of client c::

    h_c   <- h_c trained with phi frozen, head-epochs
    phi_c <- phi trained with h_c frozen, R epochs
    phi   <- phi + sum_c (n_c / n) (phi_c - phi)

The paper trains heads for 10 epochs and the representation for 1 or 5; here R is the
setting ``local-epochs``. It takes the plain mean over clients, we weigh by n_c as in
FedAvg [C]; what head and body are is as in FedPer.
"""

from pydantic import Field

from common.local_method import LocalMethod
from server_app.strategies.base import StrategyOptions
from server_app.strategies.fedper import FedPer


class FedRep(FedPer):
    """FedPer that trains head and body one after the other."""

    name = "fedrep"
    source = "FedRep, arXiv 2102.07078"
    use_when = "as fedper, and more training may be spent on it"
    cost = "0.9 of fedavg's messages; 2.7 times its training"
    no_predictor = (
        "with strategy fedrep the server has no head: each client predicts with its own"
    )

    class Options(StrategyOptions):
        """FedRep's own setting."""

        head_epochs: int = Field(
            10, ge=1, description="epochs of the head before those of the body"
        )

    def local_method(self) -> LocalMethod:
        """Train the head first."""
        return LocalMethod(
            method="alternating", personal_epochs=self.options.head_epochs
        )
