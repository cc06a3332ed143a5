"""FedBN: everything is shared but the batch norms; docs/methods.md, 4.

FedBN (Li et al., ICLR 2021, arXiv 2102.07623, Algorithm 1); every round, with b_c the
scale, shift and running statistics of all batch norms, and w all other weights::

    (w_c, b_c) <- (w, b_c) trained jointly on the client's own n_c samples, R epochs
    w          <- w + sum_c (n_c / n) (w_c - w)

Batch norms are found by the type of the module. A model without them would be FedAvg
under another name, and is refused. The server has none, hence no predictor of its own.
"""

from common.errors import SettingsError
from common.moe import ModelSpec
from common.parts import NORM
from server_app.strategies.dense import FedAvg


class FedBN(FedAvg):
    """FedAvg of all but the batch norms, which are never sent.

    Raises
    ------
    SettingsError
        If the model has no batch norm.
    """

    name = "fedbn"
    ships = "the dense model without batch norms"
    private = "batch norms"
    source = "FedBN, arXiv 2102.07623"
    use_when = (
        "inputs look different on devices (light, sensors) and the model has batch "
        "norms; the server then has no predictor"
    )
    cost = "messages of fedavg without the batch norms"
    no_predictor = (
        "with strategy fedbn the server has no batch norms: clients have their own"
    )

    @classmethod
    def shape(cls, spec: ModelSpec) -> ModelSpec:
        """Cut the batch norms out of the extractor."""
        spec = super().shape(spec).with_apart(NORM)
        if not spec.size(NORM):
            raise SettingsError(
                f"strategy = {cls.name!r} is not allowed with backbone = "
                f"{spec.backbone!r}, norm = {spec.norm!r}: there is no batch norm in "
                'that model; choose norm = "batch" with cnn, cnn1d, resnet8 or '
                "resnet18, or strategy fedavg"
            )
        return spec

    def keeps(self) -> list[str]:
        """Keep the batch norms."""
        return [NORM]
