"""Operations of a forward pass, counted by its linear and convolution layers.

Two for each multiply-add. Norms, activations, biases and attention itself are left out.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

_LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d


@contextmanager
def counted(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, int]]:
    """Count, by name, what every call of these modules takes until the end."""
    counts = dict.fromkeys(modules, 0)
    hooks = []
    for name, module in modules.items():

        def count(
            layer: nn.Module, _: object, output: torch.Tensor, name: str = name
        ) -> None:
            weight = layer.get_parameter("weight")
            counts[name] += 2 * weight.numel() * (output.numel() // len(weight))

        layers = [each for each in module.modules() if isinstance(each, _LAYERS)]
        hooks += [layer.register_forward_hook(count) for layer in layers]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def flops_of(module: nn.Module, x: torch.Tensor) -> int:
    """Return the operations of one pass of an expert: what it says, else counted."""
    said = getattr(module, "flops", None)
    if said is not None:
        return int(said(x))
    with counted({"it": module}) as counts:
        module(x)
    return counts["it"]
