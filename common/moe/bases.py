"""Pretrained weights that models of this process are built around, by their content.

A base is none of a model's parts: it is not trained, merged, checkpointed or sent back.
Its version is a hash of its tensors' names, shapes and values, whatever file they came
from and in whatever type that file stores them: two devices with one version compute
the same. All models of a process share one (:func:`install`), which computes in float32
and stays in evaluation mode: dropout in what does not learn would only blur its
features, and batch norms keep the statistics they have. Where it has to travel it does
so as a safetensors file, in the types it was stored in.

Not here: where a device finds one (``client_app.kept.base_weights``), and what the
modules are (``common.moe.pretrained``, ``common.moe.image_network``).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from common.moe.vectors import tensors_of

ROOM = 2
"""Bases kept by a process."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A frozen base.

    Attributes
    ----------
    version : str
        16 hexadecimal digits, see :func:`content_version`.
    module : Module
        In float32 and evaluation mode, without gradients.
    stored : mapping of str to dtype
        In which type each tensor came.
    """

    version: str
    module: nn.Module
    stored: Mapping[str, torch.dtype]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return its tensors by name in the types they came in."""
        return {
            name: value.cpu().to(self.stored[name]).contiguous()
            for name, value in tensors_of(self.module)
        }

    def to_bytes(self) -> bytes:
        """Return it as it travels, a safetensors file."""
        return save(self.tensors())


class BuiltAround(Protocol):
    """What has a base inside: the spec of an encoder or of a network of images."""

    @property
    def base(self) -> str:
        """Version of the base."""

    def empty(self) -> nn.Module:
        """Return a base of this configuration; its values are anything."""


_installed: dict[str, Base] = {}


def freeze(module: nn.Module) -> Base:
    """Make a base of a module as it was loaded, which becomes float32 in place."""
    stored = {name: value.dtype for name, value in tensors_of(module)}
    version = content_version(dict(tensors_of(module)))
    return Base(
        version=version,
        module=module.float().requires_grad_(False).eval(),
        stored=stored,
    )


def content_version(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return 16 hexadecimal digits over names, shapes and values in float32.

    In float32 because that is what is computed with: a checkpoint and its copy in a
    wider type are one base.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(json.dumps([name, *tensor.shape]).encode())
        values = tensor.float().contiguous().numpy().astype("<f4", copy=False)
        digest.update(values.data)
    return digest.hexdigest()[:16]


def read(data: bytes | memoryview) -> dict[str, torch.Tensor]:
    """Return the tensors in the bytes of a base; ValueError if they are damaged."""
    try:
        return load(bytes(data))
    except (SafetensorError, KeyError, OverflowError) as error:
        raise ValueError(f"no base: {error}") from None


def fill(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Base:
    """Make a base of a module of the right shape and the tensors that belong in it.

    Raises
    ------
    ValueError
        If they are others than the module's, by name or shape.
    """
    # In inference mode tensors are made that nothing can ever be trained on top of.
    with torch.inference_mode(False), torch.no_grad():
        places = dict(tensors_of(module))
        for name in sorted(places.keys() | tensors.keys()):
            wanted, found = _shape(places.get(name)), _shape(tensors.get(name))
            if wanted != found:
                raise ValueError(f"the base's {name} is {found}, expected {wanted}")
            places[name].copy_(tensors[name])
    stored = {name: value.dtype for name, value in tensors.items()}
    module = module.float().requires_grad_(False).eval()
    return Base(version=content_version(tensors), module=module, stored=stored)


def _shape(tensor: torch.Tensor | None) -> Any:
    return "not there" if tensor is None else tuple(tensor.shape)


def install(base: Base) -> None:
    """Make a base the one that models of its version use in this process."""
    # The one that is here stays: models may be at work on it. It counts as new.
    _installed[base.version] = _installed.pop(base.version, base)
    while len(_installed) > ROOM:
        _installed.pop(next(iter(_installed)))


def is_installed(version: str) -> bool:
    """Whether this process has a base."""
    return version in _installed


def installed(version: str) -> nn.Module:
    """Return the module of a base of this process; LookupError if it has none."""
    return base_of(version).module


def base_values(spec: BuiltAround) -> int:
    """Return the number of float32 values in the base."""
    return sum(value.numel() for _, value in tensors_of(installed(spec.base)))


def base_of(version: str) -> Base:
    """Return a base of this process.

    Raises
    ------
    LookupError
        If it has not been loaded or received.
    """
    if version not in _installed:
        raise LookupError(f"the frozen base {version or '(none)'} is not loaded")
    return _installed[version]
