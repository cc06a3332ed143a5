"""The linear layers inside a checkpoint's blocks, by name: where LoRA's updates go."""

import json
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from common.errors import SettingsError, nearest
from common.hub import Checkpoint, blocks_of, empty_model

USUAL = {"bert": "query,value", "gpt2": "c_attn"}
"""Where ``peft`` puts LoRA unless told otherwise, as Hu et al. (Sec. 4.2) do."""

ALL = "all"


class Linear(NamedTuple):
    """A linear layer of a block.

    Attributes
    ----------
    name : str
        Within its block.
    inputs, outputs : int
    """

    name: str
    inputs: int
    outputs: int


def find_linears(checkpoint: Checkpoint, targets: str) -> tuple[Linear, ...]:
    """Return the linear layers of a block that are meant, in the block's order.

    Parameters
    ----------
    checkpoint : Checkpoint
    targets : str
        Names or their ends, as in ``"query,value"`` or ``"attention.output.dense"``;
        ``"all"``; empty for those of ``USUAL``, else all.

    Raises
    ------
    SettingsError
        If a name is of no linear layer.
    """
    there = _linears(checkpoint.config)
    kind = json.loads(checkpoint.config)["model_type"]
    targets = targets or USUAL.get(kind, ALL)
    wanted = [each.strip() for each in targets.split(",")]
    if wanted == [ALL]:
        return there
    ends = [f".{linear.name}" for linear in there]
    for name in wanted:
        if not any(end.endswith(f".{name}") for end in ends):
            last = sorted({end.rpartition(".")[2] for end in ends})
            raise SettingsError(
                f"lora-targets = {targets!r} is not allowed: {name!r} is no linear "
                f"layer of a {kind}, which has {', '.join(last)}{nearest(name, last)}"
            )
    suffixes = tuple(f".{name}" for name in wanted)
    return tuple(
        linear
        for linear, end in zip(there, ends, strict=True)
        if end.endswith(suffixes)
    )


@lru_cache(maxsize=4)
def _linears(config: str) -> tuple[Linear, ...]:
    with torch.device("meta"):
        block = blocks_of(empty_model(config))[0]
    found = []
    for name, module in block.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear):
            found.append(Linear(name, module.in_features, module.out_features))
        elif type(module).__name__ == "Conv1D" and isinstance(weight, nn.Parameter):
            found.append(Linear(name, *weight.shape))  # GPT-2 keeps it transposed
    return tuple(found)
