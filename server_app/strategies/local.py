"""Local training, which cooperation has to beat; docs/methods.md, 4.

Every round::

    v_c <- v_c trained on the client's own n_c samples, R epochs

Nothing of a model travels, only reports. All clients start from the same seeded model,
with the same optimiser and as many steps as in FedAvg. The server has no model, so that
only ``client_local`` and ``client_global`` are measured.
"""

from common.parts import GATE
from server_app.strategies.dense import FedAvg


class Local(FedAvg):
    """Every client trains a dense model of its own."""

    name = "local"
    ships = "nothing"
    private = "the whole dense model"
    source = "local training, the same steps as FedAvg"
    use_when = (
        "nothing of a model may leave a device; and as what cooperation has to beat"
    )
    cost = "no model in any message; training of fedavg"
    no_predictor = "with strategy local the server has no model: clients have their own"

    def keeps(self) -> list[str]:
        """Keep every part but the gate, which a dense model does not use."""
        return [name for name in self.spec.part_names() if name != GATE]
