"""The frozen checkpoint of a run, on the server: loaded once, sent once, written once.

It is part of no checkpoint of the server. The run's directory has it, with its
tokeniser, as ``pretrained/``: a directory that any other run can start from.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Array
from safetensors.torch import save_file
from torch import nn

from common import wire
from common.errors import SettingsError
from common.files import atomic_folder
from common.hub import load_weights, save_checkpoint
from common.moe import ModelSpec
from common.moe.bases import install, installed, is_installed
from common.moe.vectors import pack
from common.networks.weight_files import put_values
from common.registry import BACKBONES
from common.settings import Settings

FOLDER = "pretrained"
VALUES = "base.safetensors"
"""Of a network of images, in that folder."""


def with_base(spec: ModelSpec, settings: Settings) -> ModelSpec:
    """Load the base a spec is built around; return the spec that names its version.

    Raises
    ------
    SettingsError
        If the weights cannot be read.
    """
    if spec.built_around is None:
        return spec
    base = _loaded(spec, settings.model.pretrained)
    version = wire.version(Array(pack(base)))
    if not is_installed(version):
        install(version, base)
    return spec.with_base(version)


def _loaded(spec: ModelSpec, pretrained: str) -> nn.Module:
    if (network := spec.network) is None:
        return load_weights(pretrained)
    if Path(pretrained, VALUES).is_file():  # of an earlier run: exactly its values
        return put_values(network.empty(), str(Path(pretrained, VALUES)))
    base: nn.Module = BACKBONES.find(network.name).loaded(network.size, pretrained)
    return base


@lru_cache(maxsize=1)
def base_array(version: str) -> Array:
    """Return the base as it is sent, packed when the first client needs it."""
    return Array(pack(installed(version)))


def keep_base(
    folder: Path, spec: ModelSpec, settings: Settings, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write the base into a run's directory unless it is there; return its facts.

    Parameters
    ----------
    facts : dict
        What ``run.json`` says so far.

    Raises
    ------
    SettingsError
        If the run to be continued had another one.
    """
    if spec.built_around is None:
        return {}
    version = spec.base
    if facts.get("base", version) != version:
        raise SettingsError(
            f"pretrained = {settings.model.pretrained!r} has changed since the run "
            f"began: its base was {facts['base']}, now it is {version}"
        )
    if not (folder / FOLDER).exists():
        # Whole or not at all: what is there is predicted with.
        with atomic_folder(folder / FOLDER) as made:
            if spec.network is not None:
                save_file(installed(version).state_dict(), made / VALUES)
            else:
                save_checkpoint(settings.model.pretrained, installed(version), made)
    return {"base": version}


def from_run(folder: Path, settings: Settings) -> Settings:
    """Return the settings with the checkpoint that a run's directory has."""
    if not (folder / FOLDER).is_dir():
        return settings
    model = settings.model.model_copy(update={"pretrained": str(folder / FOLDER)})
    return settings.model_copy(update={"model": model})
