"""Weights of a frozen base as somebody has them: in a directory, a file or a hub."""

from pathlib import Path

from torch import nn

from common.hub import has_weights, load_weights
from common.moe import ModelSpec
from common.networks.weight_files import put_values
from common.registry import BACKBONES

VALUES = "base.safetensors"
"""Of a network of images, in the directory that a run keeps."""


def load_base(spec: ModelSpec, pretrained: str) -> nn.Module:
    """Return the weights a setting names, in the types they are stored in.

    Parameters
    ----------
    spec : ModelSpec
        Of a model that is built around them.
    pretrained : str
        Directory, file or hub id.

    Raises
    ------
    SettingsError
        If they cannot be read.
    """
    if (network := spec.network) is None:
        return load_weights(pretrained)
    if Path(pretrained, VALUES).is_file():  # of an earlier run: exactly its values
        return put_values(network.empty(), str(Path(pretrained, VALUES)))
    base: nn.Module = BACKBONES.find(network.name).loaded(network.size, pretrained)
    return base


def load_local_base(spec: ModelSpec, pretrained: str) -> nn.Module | None:
    """Return the weights if they are on this machine; None if they are not.

    Raises
    ------
    SettingsError
        If they are and cannot be read.
    """
    if spec.network is not None:
        there = Path(pretrained).expanduser().exists()
        return load_base(spec, pretrained) if there else None
    if not has_weights(pretrained):
        return None
    return load_weights(pretrained, local=True)
