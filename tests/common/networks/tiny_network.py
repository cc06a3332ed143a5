"""A network of images as a user would bring it: small, with a batch norm and a stem."""

import torch
from torch import nn

from common.networks.look import Look
from common.networks.network import Network

FEATURES = 12


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, FEATURES, 3, padding=1), nn.ReLU()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(torch.relu(self.bn(self.stem(x)))).mean(dim=(2, 3))


LOOK = Look(size=(12, 12), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
TINY = Network(make=lambda size: Tiny(), look=LOOK)
NAME = f"{__name__}:TINY"


def weights(seed: int = 0) -> Tiny:
    """Return one with values that no other has, running statistics included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Tiny()
        for value in net.state_dict().values():
            if value.is_floating_point():
                value += 0.1 * torch.rand_like(value)
    return net.eval()
