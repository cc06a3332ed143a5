"""A network of images that others made, as the extractor of a model.

What its family or author gives (:mod:`common.networks`) maps images of one size to
features. Here is what a model makes of it: images are brought to that size, the
features are normalised, and what is frozen is left out of the part ``extractor``. The
weights, all of them, are a base (:mod:`common.moe.bases`): what is frozen is used where
it lies, what is not starts from a copy of it.

Shape suffixes: B images, C channels, H and W pixels, D features.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from common.moe.bases import installed, is_installed
from common.moe.flops import counted
from common.registry import BACKBONES

AT_A_TIME = 16
"""Images that go through a frozen network together: the memory of a small device."""

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Order = Literal["rgb", "bgr"]


class OfImages(Protocol):
    """What the registry gives for a network: see ``common.networks.network``."""

    make: Callable[[tuple[int, int]], nn.Module]

    def stages(self, net: nn.Module) -> list[list[str]]:
        """Return the paths of the modules of every stage, from the input on."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Shape of a network of images.

    Attributes
    ----------
    name : str
        Of the registry of backbones.
    size : tuple of int
        Height and width of the images it is given.
    interpolation, channels : str
        How they are brought there, and the order of colours it was trained with.
    frozen : int or None
        Stages, from the input on, that are not trained; None for all of it.
    pretrained : bool
        Whether it has weights to start from.
    base : str
        Their version.
    """

    name: str
    size: tuple[int, int]
    interpolation: Interpolation = "bilinear"
    channels: Order = "rgb"
    frozen: int | None = 0
    pretrained: bool = False
    base: str = ""

    @property
    def config(self) -> str:
        """What a base of it is of; empty without weights."""
        return self.name if self.pretrained else ""

    @property
    def all_frozen(self) -> bool:
        """Whether only its features are used."""
        return self.frozen is None

    def empty(self) -> nn.Module:
        """Return a network; its values are anything."""
        return network_of(self.name).make(self.size)


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What a network was seen to do with one image.

    Attributes
    ----------
    out_features, flops : int
    largest : int
        Numbers of the largest activation.
    stages : int
        How many of them can be frozen.
    """

    out_features: int
    flops: int
    largest: int
    stages: int


def network_of(name: str) -> OfImages:
    """Return what the registry gives for a name."""
    found: OfImages = BACKBONES.find(name)
    return found


@lru_cache(maxsize=8)
@torch.no_grad()
def measured(name: str, size: tuple[int, int]) -> NetworkFacts:
    """Try a network on one black image, once per process.

    Raises
    ------
    SettingsError
        If it cannot be made, or does not map (B, 3, H, W) to (B, D).
    """
    largest = [0]

    def note(_: nn.Module, __: object, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            largest[0] = max(largest[0], out.numel())

    with (
        torch.device("cpu"),
        torch.inference_mode(False),
        torch.random.fork_rng(devices=[]),
    ):
        network = network_of(name)
        net = network.make(size).eval()
        for module in net.modules():
            module.register_forward_hook(note)
        try:
            with counted({name: net}) as counts:
                out = net(torch.zeros(1, 3, *size))
        except Exception as error:  # whatever a network says of such an image
            raise BACKBONES.error(
                name, f"cannot take images of {size[0]}x{size[1]}: {error}"
            ) from error
    shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
    if not isinstance(out, torch.Tensor) or out.ndim != 2:
        raise BACKBONES.error(
            name, f"maps (1, 3, {size[0]}, {size[1]}) to {shape}: expected (1, D)"
        )
    return NetworkFacts(
        out_features=out.shape[1],
        flops=counts[name],
        largest=largest[0],
        stages=len(network.stages(net)),
    )


class NetworkExtractor(nn.Module):
    """Resizing, the network, and a layer norm of its features.

    Its own parameters, the part ``extractor``, are the norm and what is not frozen.
    What has been through a network that is frozen as a whole, (B, D), is taken as it
    is: such features may be computed once and kept.

    Parameters
    ----------
    spec : NetworkSpec
        ``base`` names the weights; they are looked up when they are needed.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.out_features = measured(spec.name, spec.size).out_features
        self.net = None if spec.all_frozen else _trained(spec)
        self.norm = nn.LayerNorm(self.out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, C, H, W) or features (B, D) to normalised features (B, D)."""
        features: torch.Tensor = x
        if x.ndim == 4:
            if self.spec.pretrained:
                installed(self.spec.base).to(x.device)
            if self.net is None:
                features = frozen_features(self.spec, x)
            else:
                features = self.net(seen(self.spec, x))
        return self.norm(features)


def seen(spec: NetworkSpec, x_BCHW: torch.Tensor) -> torch.Tensor:
    """Return images as the network sees them, (B, 3, *size); grey has three colours."""
    if x_BCHW.shape[1] == 1:
        x_BCHW = x_BCHW.expand(-1, 3, -1, -1)
    if spec.channels == "bgr":
        x_BCHW = x_BCHW.flip(1)
    if tuple(x_BCHW.shape[2:]) == spec.size:
        return x_BCHW
    if spec.interpolation == "nearest":
        return F.interpolate(x_BCHW, spec.size, mode="nearest")
    # Antialiased, as images that are resized before a network sees them are.
    return F.interpolate(
        x_BCHW, spec.size, mode=spec.interpolation, antialias=True, align_corners=False
    )


@torch.no_grad()
def frozen_features(spec: NetworkSpec, x_BCHW: torch.Tensor) -> torch.Tensor:
    """Return what a network that is frozen as a whole makes of images, (B, D)."""
    base = installed(spec.base)
    if torch.compiler.is_exporting():
        return base(seen(spec, x_BCHW))
    pieces = x_BCHW.split(AT_A_TIME)
    return torch.cat([base(seen(spec, piece)) for piece in pieces])


class _Frozen(nn.Module):
    """Stands for a module of the base, none of whose parameters are its own."""

    def __init__(self, spec: NetworkSpec, path: str) -> None:
        super().__init__()
        self.spec, self.path = spec, path

    def forward(self, *given: Any, **named: Any) -> Any:
        return installed(self.spec.base).get_submodule(self.path)(*given, **named)


def _trained(spec: NetworkSpec) -> nn.Module:
    """Return a network with the base's values, and its first stages left there."""
    if is_installed(spec.base):
        # The base is where it was last used; a model is made on the processor.
        net = deepcopy(installed(spec.base)).cpu().requires_grad_(True)
    else:  # only its form is asked for, or it starts from nothing
        net = spec.empty().requires_grad_(True)
    if spec.frozen:
        for stage in network_of(spec.name).stages(net)[: spec.frozen]:
            for path in stage:
                parent, _, name = path.rpartition(".")
                setattr(net.get_submodule(parent), name, _Frozen(spec, path))
    return net
