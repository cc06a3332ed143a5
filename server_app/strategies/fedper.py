"""FedPer: the body is shared, every client has a head of its own; docs/methods.md, 4.

FedPer (Arivazhagan et al., arXiv 1912.00818, Algorithms 1 and 2); every round, with
w the body and h_c the head of client c::

    (w_c, h_c) <- (w, h_c) trained jointly on the client's own n_c samples, R epochs
    w          <- w + sum_c (n_c / n) (w_c - w)

The head is what the dense model ends with: its expert of two layers, or the linear head
of a text encoder (one personalisation layer, K_P = 1) [C]. It starts from the same
seeded values everywhere. The server has no head, hence no predictor of its own.
"""

from common.moe import ModelSpec
from common.parts import HEAD
from server_app.strategies.dense import FedAvg


class FedPer(FedAvg):
    """FedAvg of the body; the head is never sent."""

    name = "fedper"
    ships = "extractor"
    private = "head"
    source = "FedPer, arXiv 1912.00818"
    use_when = (
        "devices have other classes or other names for them; the server then has no "
        "predictor"
    )
    cost = "messages of fedavg without the head"
    no_predictor = (
        "with strategy fedper the server has no head: each client predicts with its own"
    )

    @classmethod
    def shape(cls, spec: ModelSpec) -> ModelSpec:
        """Cut the head out of a text encoder; elsewhere the expert is the head."""
        spec = super().shape(spec)
        return spec if spec.encoder is None else spec.with_apart(HEAD)

    def keeps(self) -> list[str]:
        """Keep the head."""
        return [self.spec.head_part]
