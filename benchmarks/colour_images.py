"""What the benchmarks of a backbone share: the model for colour images and one step."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from common.moe import ModelSpec
from common.moe.model import MoEModel
from common.optimizers import SGD


def spec_of(backbone: str) -> ModelSpec:
    """Return a mixture of eight experts on a backbone that sees 32 x 32 images."""
    return ModelSpec(
        backbone=backbone,
        input_shape=(3, 32, 32),
        num_classes=10,
        num_experts=8,
        top_k=1,
        expert_hidden=512,
    )


def training_step(model: MoEModel, batch: int) -> Callable[[], None]:
    """Return what trains the model on one batch of noise, the same in every call."""
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0)
    x, y = torch.randn(batch, *model.spec.input_shape), torch.randint(10, (batch,))

    def step() -> None:
        loss = F.cross_entropy(model(x).logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
