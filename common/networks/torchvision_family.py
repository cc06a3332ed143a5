"""``torchvision:NAME``: the classifiers of torchvision.

Weights from a file or directory; with ``pretrained = "default"``, or the name of its
weights such as ``IMAGENET1K_V2``, those that torchvision downloads. How images are seen
is what these weights say (``Weights.transforms()``), also of weights from a file.
"""

from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from common.errors import SettingsError, nearest
from common.networks.look import Look
from common.networks.network import Network, Size
from common.networks.stages import without_classifier
from common.networks.weight_files import look_beside, put_values
from common.registry import BACKBONES
from common.text import reason

DEFAULT = "default"


def network(name: str) -> Network:
    """Return a classifier of torchvision, without its last layer.

    Raises
    ------
    SettingsError
        If there is no such network.
    """
    # Late: importing it imports torch's compiler, too.
    models = import_module("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        hint = nearest(name, known)
        raise BACKBONES.error(
            f"torchvision:{name}", f"is no classifier of torchvision{hint}"
        )
    return Network(
        make=partial(_made, models, name),
        load=partial(_loaded, models, name),
        look_of=partial(_look, models, name),
    )


def _made(models: Any, name: str, size: Size) -> nn.Module:
    more = {"image_size": size[0]} if name.startswith("vit_") else {}
    return without_classifier(models.get_model(name, weights=None, **more))


def _loaded(models: Any, name: str, size: Size, pretrained: str) -> nn.Module:
    weights = _weights(models, name, pretrained)
    if weights is None:
        return put_values(_made(models, name, size), pretrained)
    try:
        return without_classifier(models.get_model(name, weights=weights))
    except Exception as error:  # no network, a broken download
        raise SettingsError(
            f"pretrained = {pretrained!r} cannot be loaded: {reason(error)}"
        ) from None


def _weights(models: Any, name: str, pretrained: str) -> Any:
    """Return the weights of torchvision that are named, None for a file's."""
    known = models.get_model_weights(name)
    if pretrained == DEFAULT:
        return known.DEFAULT
    return known.__members__.get(pretrained)


def _look(models: Any, name: str, pretrained: str) -> Look:
    weights = _weights(models, name, pretrained)
    seen = (weights or models.get_model_weights(name).DEFAULT).transforms()
    look = Look(
        size=(seen.crop_size[0],) * 2,
        mean=tuple(seen.mean),
        std=tuple(seen.std),
        interpolation=seen.interpolation.value,
    )
    return look if weights is not None else look_beside(pretrained, look)
