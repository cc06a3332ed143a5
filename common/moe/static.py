"""The gated mixture as a graph whose shapes do not depend on the data.

Routing sorts samples by expert and skips the rest, which no exported graph can say.
This form runs every held expert on every sample and masks those the gate did not
choose (:meth:`common.moe.layer.MoELayer.masked`).
"""

import torch
from torch import nn

from common.moe import mixing
from common.moe.model import MoEModel, features_of


class StaticMixture(nn.Module):
    """Dense and masked; equal to the routed model up to rounding.

    Parameters
    ----------
    model : MoEModel
        With its gate.
    """

    def __init__(self, model: MoEModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map inputs (B, *input_shape) to probabilities (B, C) and experts (B,)."""
        model = self.model
        seen = None if model.common is None else features_of(model.common, x)
        if (encoder := model.spec.encoder) is None:
            logits, held_BH = model.moe.masked(model.extractor(x), seen)
        else:
            record: list[torch.Tensor] = []
            mixes = [
                mixing.masked(layer, encoder.routing, seen, record)
                for layer in model.layers
            ]
            logits, held_BH = model.extractor(x, mixes), record[-1]
        return logits.softmax(1), model.last_held[held_BH.argmax(1)]
