"""The gated mixture as a graph whose shapes do not depend on the data.

Routing sorts samples by expert and skips the rest, which no exported graph can say.
This form runs every held expert on every sample and masks those the gate did not
choose: the same answer, for ``H / top_k`` times the experts' work.
"""

import torch
from torch import nn

from common.moe.model import MoEModel


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
        model, layer = self.model, self.model.moe
        x_BD = layer.scale * model.extractor(x)
        gate_input = x_BD if model.common is None else model.common(x)
        held_BH = layer.gate(gate_input)[:, layer.held_ids]
        chosen_BK = held_BH.topk(layer.top_k, dim=1).indices
        kept_BH = torch.zeros_like(held_BH).scatter(1, chosen_BK, 1.0)
        expert_BHC = torch.stack([f(x_BD) for f in layer.experts.values()], dim=1)
        if layer.mixes == "logits":
            weight_BH = held_BH.softmax(1) * kept_BH
            logits = (expert_BHC * weight_BH[:, :, None]).sum(1)
        else:
            # A finite stand-in for -inf, which int8 scales could not hold.
            weight_BH = held_BH.log_softmax(1) - 1e4 * (1 - kept_BH)
            logits = (expert_BHC.log_softmax(2) + weight_BH[:, :, None]).logsumexp(1)
        return logits.softmax(1), layer.held_ids[held_BH.argmax(1)]
