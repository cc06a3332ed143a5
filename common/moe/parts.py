"""The parts of a model that travel, and their flat vectors.

A *part* is the unit that is shipped, merged and versioned: ``extractor``,
``expert.<id>``, ``gate`` and, where a strategy feeds the gate from a frozen network of
its own, ``common``. A part is one flat float32 vector in a fixed order (parameters,
then floating-point buffers), so that the server adds vectors and knows no torch
modules, and one expert is one array on the wire.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Vector = NDArray[np.float32]
Layout = tuple[tuple[str, tuple[int, ...]], ...]

EXTRACTOR, GATE, COMMON = "extractor", "gate", "common"


def expert_part(expert: int) -> str:
    """Return the part name of the expert with this global id."""
    return f"expert.{expert}"


def expert_id(part: str) -> int | None:
    """Return the global id a part name carries, None if it is no expert."""
    prefix, _, number = part.partition(".")
    return int(number) if prefix == "expert" and number.isdecimal() else None


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


def unflatten(vector: Vector, layout: Layout) -> dict[str, Vector]:
    """Cut a part's vector into its named tensors (views, no copy)."""
    sizes = [int(np.prod(shape)) for _, shape in layout]
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {
        name: piece.reshape(shape)
        for (name, shape), piece in zip(layout, pieces, strict=True)
    }


def initialise(module: nn.Module) -> None:
    """Draw a module's parameters again, by each layer's own formula."""
    for layer in module.modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
