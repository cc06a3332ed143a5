"""A backbone, an encoder of text and an expert that do not come with the program."""

from collections.abc import Sequence

import torch
from torch import nn

from common.moe.backbones import Norm
from common.moe.encoder import EncoderSpec, Mix, pooled


class GatedExpert(nn.Module):
    """One linear layer, each unit opened or shut by a second one."""

    def __init__(self, width: int, hidden: int, out: int, scale: float) -> None:
        super().__init__()
        del scale
        self.value, self.door = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.value(x) * self.door(x).sigmoid())


class Mean(nn.Module):
    """The mean of every channel."""

    def __init__(self, shape: tuple[int, ...], width: float, norm: Norm) -> None:
        super().__init__()
        self.out_features = shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mean(2)


class BagOfWords(nn.Module):
    """Tokens alone, through every mixture in turn."""

    takes_tokens = True

    def __init__(self, spec: EncoderSpec, length: int, classes: int) -> None:
        super().__init__()
        self.out_features = spec.width
        self.token = nn.Embedding(spec.vocabulary, spec.width)
        self.head = nn.Linear(spec.width, classes)

    def forward(self, x: torch.Tensor, mixes: Sequence[Mix]) -> torch.Tensor:
        real, out = x != 0, self.token(x)
        for mix in mixes:
            out = out + mix(out, real)
        return self.head(pooled(out, real))
