"""The frozen base of a run, on the server: loaded once, cut into pieces, written once.

It is part of no checkpoint of the server. The run's directory has it, with its
tokeniser, as ``pretrained/``: a directory that any other run can start from.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array
from safetensors.torch import save_file

from common.base_source import VALUES, load_base
from common.errors import SettingsError
from common.files import atomic_folder
from common.hub import save_checkpoint
from common.moe import ModelSpec
from common.moe.bases import base_of, freeze, install
from common.settings import Settings
from common.wire import PIECE, BasePiece

FOLDER = "pretrained"


def with_base(spec: ModelSpec, settings: Settings) -> ModelSpec:
    """Load the base a spec is built around; return the spec that names its version.

    Raises
    ------
    SettingsError
        If the weights cannot be read.
    """
    if spec.built_around is None:
        return spec
    base = freeze(load_base(spec, settings.model.pretrained))
    install(base)
    return spec.with_base(base.version)


def base_piece(version: str, kept: int) -> tuple[BasePiece, Array]:
    """Return the piece that follows what a device keeps, and its bytes."""
    start = kept // PIECE * PIECE
    data, pieces = _packed(version)
    if start >= len(data):
        start = 0
    if start not in pieces:  # one object for all who are sent it
        view = np.frombuffer(data, np.uint8)[start : start + PIECE]
        pieces[start] = Array(view)
    return BasePiece(base=version, start=start, total=len(data)), pieces[start]


@lru_cache(maxsize=1)
def _packed(version: str) -> tuple[bytes, dict[int, Array]]:
    """Return the base as it travels, packed when the first client needs it."""
    return base_of(version).to_bytes(), {}


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
            base = base_of(version)
            if spec.network is not None:
                save_file(base.module.state_dict(), made / VALUES)
            else:
                name = settings.model.pretrained
                save_checkpoint(name, base.module, base.tensors(), made)
    return {"base": version}


def from_run(folder: Path, settings: Settings) -> Settings:
    """Return the settings with the checkpoint that a run's directory has."""
    if not (folder / FOLDER).is_dir():
        return settings
    model = settings.model.model_copy(update={"pretrained": str(folder / FOLDER)})
    return settings.model_copy(update={"model": model})
