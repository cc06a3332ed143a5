"""FedAvg, fine-tuned by each client before it is used; docs/methods.md, 4.

Every round, as in FedAvg, and then for the client's own use::

    w_c <- w trained on the client's own n_c samples, R epochs     (sent)
    w   <- w + sum_c (n_c / n) (w_c - w)
    v_c <- w_c trained for epochs more                             (never sent)

Fine-tuning after federated averaging is as old as the question what it is good for
(Wang et al., arXiv 1910.10252; Cheng et al., arXiv 2108.07313); here it goes on from
w_c, so that epochs = 0 is FedAvg [C]. Nothing of v_c outlives the round.
"""

from pydantic import Field

from common.local_method import LocalMethod
from server_app.strategies.base import StrategyOptions
from server_app.strategies.dense import FedAvg


class FedAvgFT(FedAvg):
    """FedAvg with epochs for the client alone after those that are sent."""

    name = "fedavg-ft"
    private = "what it fine-tunes"
    source = "FedAvg with fine-tuning, arXiv 1910.10252"
    use_when = "each device may tune the shared model for itself, and keeps nothing"
    cost = "messages of fedavg; twice its training with two epochs more"

    class Options(StrategyOptions):
        """Its own setting."""

        epochs: int = Field(2, ge=0, description="epochs of fine-tuning; 0 is FedAvg")

    def local_method(self) -> LocalMethod:
        """Train on for own use."""
        return LocalMethod(method="fine-tune", personal_epochs=self.options.epochs)
