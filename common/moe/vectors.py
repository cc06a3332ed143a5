"""A module as one flat float32 vector and back (:mod:`common.parts`).

Parameters first, then floating-point buffers, each in the module's own order.
"""

import numpy as np
import torch
from torch import nn

from common.parts import Layout, Vector


def tensors_of(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the named tensors of a module that are part of its vector, in order."""
    # num_batches_tracked is an integer buffer that only momentum=None would read.
    return [
        (name, value.detach())
        for name, value in [*module.named_parameters(), *module.named_buffers()]
        if value.is_floating_point()
    ]


def layout_of(module: nn.Module) -> Layout:
    """Return name and shape of the tensors in a module's vector, in order."""
    return tuple((name, tuple(value.shape)) for name, value in tensors_of(module))


def pack(module: nn.Module) -> Vector:
    """Return the parameters and float buffers of a module as one flat vector."""
    flat = [value.cpu().reshape(-1) for _, value in tensors_of(module)]
    return torch.cat(flat).numpy()


def unpack_into(module: nn.Module, vector: Vector, name: str = "part") -> None:
    """Copy a flat vector back into a module.

    Raises
    ------
    ValueError
        If the length does not match.
    """
    tensors = tensors_of(module)
    size = sum(value.numel() for _, value in tensors)
    if vector.shape != (size,):
        raise ValueError(f"{name} has shape {vector.shape}, expected ({size},)")
    # A copy: what came in a message is read-only, and torch would warn.
    source = torch.from_numpy(np.array(vector, dtype=np.float32))
    start = 0
    for _, value in tensors:
        stop = start + value.numel()
        value.copy_(source[start:stop].view_as(value))
        start = stop


def initialise(module: nn.Module) -> None:
    """Draw a module's parameters again, by each layer's own formula."""
    for layer in module.modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
