"""The frozen checkpoint of a run, on the server: loaded once, sent once, written once.

It is part of no checkpoint of the server. The run's directory has it, with its
tokeniser, as ``pretrained/``: a directory that any other run can start from.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Array

from common import wire
from common.errors import SettingsError
from common.files import atomic_folder
from common.hub import load_weights, save_checkpoint
from common.moe import ModelSpec
from common.moe.pretrained import install, installed, is_installed
from common.moe.vectors import pack
from common.settings import Settings

FOLDER = "pretrained"


def with_base(spec: ModelSpec, settings: Settings) -> ModelSpec:
    """Load the base a spec is built around; return the spec that names its version.

    Raises
    ------
    SettingsError
        If the weights cannot be read.
    """
    if spec.encoder is None or not spec.has_base:
        return spec
    base = load_weights(settings.model.pretrained)
    version = wire.version(Array(pack(base)))
    if not is_installed(version):
        install(version, base)
    return replace(spec, encoder=replace(spec.encoder, base=version))


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
    if spec.encoder is None or not spec.has_base:
        return {}
    version = spec.encoder.base
    if facts.get("base", version) != version:
        raise SettingsError(
            f"pretrained = {settings.model.pretrained!r} has changed since the run "
            f"began: its base was {facts['base']}, now it is {version}"
        )
    if not (folder / FOLDER).exists():
        # Whole or not at all: what is there is predicted with.
        with atomic_folder(folder / FOLDER) as made:
            save_checkpoint(settings.model.pretrained, installed(version), made)
    return {"base": version}


def from_run(folder: Path, settings: Settings) -> Settings:
    """Return the settings with the checkpoint that a run's directory has."""
    if not (folder / FOLDER).is_dir():
        return settings
    model = settings.model.model_copy(update={"pretrained": str(folder / FOLDER)})
    return settings.model_copy(update={"model": model})
