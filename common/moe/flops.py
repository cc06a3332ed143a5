"""Operations of a forward pass, counted as it runs."""

import torch
from torch import nn


def count_into(
    counts: dict[str, int], name: str, module: nn.Module
) -> list[torch.utils.hooks.RemovableHandle]:
    """Add to ``counts[name]`` what every call of the module takes.

    Two operations per multiply-add of linear and convolution layers.
    """

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        weight = layer.get_parameter("weight")
        counts[name] += 2 * weight.numel() * (output.numel() // len(weight))

    kinds = nn.Linear | nn.Conv1d | nn.Conv2d
    layers = [f for f in module.modules() if isinstance(f, kinds)]
    return [layer.register_forward_hook(count) for layer in layers]
