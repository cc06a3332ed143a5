"""Pretrained weights that models of this process are built around, by their version.

A base is none of a model's parts: it is not trained, merged, checkpointed or sent back.
All models of a process share one, and it stays in evaluation mode: dropout in what does
not learn would only blur its features, and batch norms keep the statistics they have.
"""

from typing import Protocol

import torch
from torch import nn

from common.moe.vectors import tensors_of, unpack_into
from common.parts import BASE, Vector

ROOM = 2
"""Bases kept by a process."""

_installed: dict[str, nn.Module] = {}


class BuiltAround(Protocol):
    """What has a base inside: the spec of an encoder or of a network of images."""

    @property
    def base(self) -> str:
        """Version of the base."""

    def empty(self) -> nn.Module:
        """Return a base of this configuration; its values are anything."""


def install(version: str, base: nn.Module) -> None:
    """Make a base the one that models of this version use in this process."""
    while len(_installed) >= ROOM:
        _installed.pop(next(iter(_installed)))
    _installed[version] = base.requires_grad_(False).eval()


def install_vector(spec: BuiltAround, vector: Vector) -> None:
    """Do so with what came in a message.

    Raises
    ------
    ValueError
        If the vector is not of the configuration.
    """
    # In inference mode tensors are made that nothing can ever be trained on top of.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        base = spec.empty()
        unpack_into(base, vector, BASE)
    install(spec.base, base)


def is_installed(version: str) -> bool:
    """Whether this process has a base."""
    return version in _installed


def installed(version: str) -> nn.Module:
    """Return a base of this process.

    Raises
    ------
    LookupError
        If it has not been loaded or received.
    """
    if version not in _installed:
        raise LookupError(f"the frozen base {version or '(none)'} is not loaded")
    return _installed[version]


def base_values(spec: BuiltAround) -> int:
    """Return the number of float32 values in the base."""
    return sum(value.numel() for _, value in tensors_of(installed(spec.base)))
