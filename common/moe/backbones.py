"""Shared feature extractors (psi) of images, series and numbers.

A backbone maps inputs of shape (B, *input_shape) to features (B, D) and says D as
``out_features``; where that is the mean over the places of an image, ``maps`` gives
them before. ``width`` scales every hidden channel count, which is what FedRolex needs.
One with ``takes_series = True`` is for windows (B, channels, steps), not images.
Classification happens in the experts, not here.

Convolutional backbones normalise with GroupNorm by default: BatchNorm's running
statistics describe the data of one client, averaging them over non-IID clients
describes nobody's, and they would have to travel although they are not gradients.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from common.moe.pooling import MaxPool2x2

Norm = Callable[[int], nn.Module]


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with up to 8 groups, whatever divides ``channels``."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class _WithSpread(nn.modules.batchnorm._BatchNorm):
    """torch's, with a word on what to do about a single value of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, ...); ValueError if there is no spread to learn."""
        if self.training and x.numel() == x.shape[1]:
            places = "x".join("1" * (x.ndim - 2))
            raise ValueError(
                f'norm = "batch" cannot train on one sample with features of {places}: '
                "it needs batch-size and training samples of at least 2; or norm = "
                '"group"'
            )
        return super().forward(x)


class BatchNorm(_WithSpread, nn.BatchNorm2d):
    """Of images."""


class SeriesBatchNorm(_WithSpread, nn.BatchNorm1d):
    """Of series."""


NORMS: dict[str, Norm] = {"group": group_norm, "batch": BatchNorm}
SERIES_NORMS: dict[str, Norm] = {"group": group_norm, "batch": SeriesBatchNorm}


KERNEL = 7
"""Steps that a convolution along a series looks at."""


def scaled(channels: int, width: float) -> int:
    """Return ``ceil(channels * width)``, the FedRolex window of that many channels."""
    return math.ceil(channels * width)


class MLP(nn.Module):
    """Flatten and one hidden layer: for data as small as 8x8 digits."""

    def __init__(self, input_shape: tuple[int, ...], width: float, norm: Norm) -> None:
        super().__init__()
        del norm  # nothing to normalise in one hidden layer
        self.out_features = scaled(64, width)
        self.hidden = nn.Linear(math.prod(input_shape), self.out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, *input_shape) to (B, D)."""
        return torch.relu(self.hidden(x.flatten(1)))


class CNN(nn.Module):
    """Three 3x3 convolutions with pooling and a global average."""

    def __init__(self, input_shape: tuple[int, ...], width: float, norm: Norm) -> None:
        super().__init__()
        channels = [scaled(c, width) for c in (32, 64, 128)]
        self.out_features = channels[-1]
        stages: list[nn.Module] = []
        for before, after in zip([input_shape[0], *channels], channels, strict=False):
            stages += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                norm(after),
                nn.ReLU(),
                MaxPool2x2(),
            ]
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, D)."""
        return self.maps(x).mean(dim=(2, 3))

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, D, H / 8, W / 8)."""
        return self.stages(x)


class CNN1D(nn.Module):
    """Three convolutions along the steps with pooling and a global average.

    The first has a bias and no norm: a norm there would take away how strong a signal
    is, which is what tells a worn bearing from a new one.
    """

    takes_series = True

    def __init__(self, input_shape: tuple[int, ...], width: float, norm: Norm) -> None:
        super().__init__()
        before, steps = input_shape
        stages: list[nn.Module] = []
        for channels in (32, 64, 128):
            after = scaled(channels, width)
            first = not stages
            stages.append(
                nn.Conv1d(before, after, KERNEL, padding=KERNEL // 2, bias=first)
            )
            stages += [nn.ReLU()] if first else [norm(after), nn.ReLU()]
            if steps > 1:  # a short window ends before the stages do
                stages.append(nn.MaxPool1d(2))
            before, steps = after, max(1, steps // 2)
        self.out_features = before
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, L) to (B, D)."""
        return self.stages(x).mean(dim=2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., CVPR 2016).

    The same as torchvision's, parameter names included; importing that one imports
    torch's compiler too, which doubles the start and the memory of a device process.
    """

    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = norm(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), norm(after)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, before, H, W) to (B, after, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + shortcut)


class ResNet(nn.Module):
    """A CIFAR-style ResNet of basic blocks: 3x3 stem, no max-pool.

    Parameters
    ----------
    stages : sequence of (channels, blocks)
        Every stage after the first halves the resolution.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: float,
        norm: Norm,
        *,
        stages: tuple[tuple[int, int], ...],
    ) -> None:
        super().__init__()
        before = scaled(stages[0][0], width)
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], before, 3, padding=1, bias=False),
            norm(before),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        for stage, (channels, count) in enumerate(stages):
            after = scaled(channels, width)
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(BasicBlock(before, after, stride, norm))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.out_features = before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, D)."""
        return self.maps(x).mean(dim=(2, 3))

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, D, H', W'), halved after every stage but the last."""
        return self.blocks(self.stem(x))


resnet8 = partial(ResNet, stages=((16, 1), (32, 1), (64, 1)))
resnet18 = partial(ResNet, stages=((64, 2), (128, 2), (256, 2), (512, 2)))
