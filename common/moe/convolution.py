"""A convolution as an expert of images.

It sees the backbone's last maps before they are averaged over places, and so where in
an image something is, which the mean has lost. The gate sees the mean.
"""

import torch
from torch import nn

from common.moe.backbones import group_norm
from common.moe.experts import ActsOn


class ConvExpert(nn.Module):
    """A 3x3 convolution to ``hidden`` channels, mean over places, linear layer.

    Its norm is a group norm, whatever the backbone has: running statistics of an expert
    would be those of few samples of few clients.
    """

    acts_on: ActsOn = "maps"

    def __init__(
        self, in_features: int, hidden: int, out_features: int, scale: float
    ) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(in_features, hidden, 3, padding=1, bias=False)
        self.norm = group_norm(hidden)
        self.out = nn.Linear(hidden, out_features)

    def forward(self, x_NDHW: torch.Tensor) -> torch.Tensor:
        """Map maps (N, D, H, W) to class logits (N, O)."""
        hidden_NFHW = torch.relu(self.norm(self.conv(x_NDHW)))
        return self.out(self.scale * hidden_NFHW.mean(dim=(2, 3)))
