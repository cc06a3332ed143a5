"""The server's own predictor: all experts, averaged by how much clients used them.

Private gates stay on the clients, so the server has nothing to route with; what it can
do is average the members' predictions (``server_global`` of METHODS 1).
"""

import torch
from numpy.typing import ArrayLike
from torch import nn

from common.moe.model import MoEModel


class UsageMixture(nn.Module):
    """Weighted mean of the experts' class probabilities.

    Parameters
    ----------
    model : MoEModel
        Holding all experts that have weight.
    usage : array_like, shape (H,)
        Non-negative weight of each held expert; all zero means equal weights.
    """

    weights: torch.Tensor

    def __init__(self, model: MoEModel, usage: ArrayLike) -> None:
        super().__init__()
        self.model = model
        weights = torch.as_tensor(usage, dtype=torch.float32)
        if not weights.sum() > 0:
            weights = torch.ones_like(weights)
        self.register_buffer("weights", weights / weights.sum())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (B, *input_shape) to class probabilities (B, C)."""
        features = self.model.extractor(x)
        members = [f(features).softmax(1) for f in self.model.moe.experts.values()]
        return torch.einsum("hbc,h->bc", torch.stack(members), self.weights)


class GatedMixture(nn.Module):
    """The mixture with its gate, where the gate is the server's to use.

    Parameters
    ----------
    model : MoEModel
        Holding all experts, gate loaded.
    """

    def __init__(self, model: MoEModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (B, *input_shape) to class probabilities (B, C)."""
        return self.model(x).logits.softmax(1)
