"""One epoch's order cut into batches, none of them too small for a batch norm.

A batch norm takes the spread of a batch; of one sample whose features are 1x1 there is
none. A last batch of one sample therefore joins the one before it. What is left to
refuse is in ``backbones``.
"""

import torch
from torch import nn


def batches_of(order: torch.Tensor, size: int, model: nn.Module) -> list[torch.Tensor]:
    """Cut an order of samples into batches.

    Parameters
    ----------
    order : Tensor of int, shape (n,)
    size : int
        Samples of a batch; with a batch norm the last one may have one more.
    model : nn.Module
        That will be trained on them.
    """
    batches = list(order.split(size))
    alone = len(batches) > 1 and size > 1 == len(batches[-1])
    if alone and any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
