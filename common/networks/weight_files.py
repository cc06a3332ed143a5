"""Weights of a network in a file or a directory, and what lies beside them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from common.errors import SettingsError
from common.networks.look import Look, look_from
from common.text import reason

NAMES = ("model.safetensors", "pytorch_model.bin", "model.pth")
"""Looked for in a directory, in this order; else its only file of weights."""

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
_WRAPPED = ("state_dict_ema", "state_dict", "model_state_dict", "model")


def file_of(pretrained: str) -> Path:
    """Return the file of weights that the setting names.

    Raises
    ------
    SettingsError
        If there is none.
    """
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise _unreadable(pretrained, "does not exist: expected a file or a directory")
    files = [path / name for name in NAMES if (path / name).is_file()]
    files += [each for each in sorted(path.iterdir()) if each.suffix in ENDINGS]
    if not files:
        ends = ", ".join(ENDINGS)
        raise _unreadable(pretrained, f"has no weights: expected a file of {ends}")
    return files[0]


def look_beside(pretrained: str, known: Look) -> Look:
    """Return the look that ``config.json`` beside the weights says, as timm writes it.

    Without one, the look that is known.
    """
    path = Path(pretrained).expanduser()
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not pretrained or not file.is_file():
        return known
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return look_from(config.get("pretrained_cfg", config), known)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(str(file), f"cannot be used: {reason(error)}") from None


def put_values(net: nn.Module, pretrained: str) -> nn.Module:
    """Load weights into a network; what it does not have, a classifier, is left out.

    Raises
    ------
    SettingsError
        If they cannot be read, or are not all of this network's.
    """
    values = read_values(pretrained)
    try:
        missing, _ = net.load_state_dict(values, strict=False)
    except RuntimeError as error:  # of another shape
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise _unreadable(pretrained, f"does not fit: {lines[-1]}") from None
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing:
        raise _unreadable(
            pretrained,
            f"has no weights for {missing[0]} (and {len(missing) - 1} more): expected "
            "those of the network",
        )
    return net


def read_values(pretrained: str) -> dict[str, torch.Tensor]:
    """Return tensors by name; no code of the file is run."""
    file = file_of(pretrained)
    try:
        found: Any
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
        for key in _WRAPPED:
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                found = found[key]
                break
        return {
            name.removeprefix("module."): value
            for name, value in found.items()
            if isinstance(value, torch.Tensor)
        }
    except (SafetensorError, Exception) as error:  # whatever a broken file does
        raise _unreadable(pretrained, f"cannot be read: {reason(error)}") from None


def _unreadable(pretrained: str, why: str) -> SettingsError:
    return SettingsError(f"pretrained = {pretrained!r} {why}")
