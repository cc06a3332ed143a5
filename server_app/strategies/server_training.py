"""Training on the server's own reserved samples D^r: what Fed-MoE and CentMoE share.

The server never imports client code; its loop is small and has no per-expert
statistics to collect.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from common.augment import Augment
from common.errors import SettingsError
from common.losses import smoothed_cross_entropy
from common.moe import MoEModel
from common.moe.batches import batches_of
from common.settings import Settings
from common.settings.training_settings import TrainingSettings
from common.shape import dataset_of, device_of, reserved_samples
from common.steps import Steps

Tensors = tuple[torch.Tensor, torch.Tensor]


def require_reserved(settings: Settings, strategy: str, why: str) -> None:
    """Refuse to go on without reserved samples.

    Raises
    ------
    SettingsError
        Naming the key and a value to start with; or that there cannot be any.
    """
    if task := settings.data.task:
        raise SettingsError(
            f"task = {task!r} is not allowed with strategy {strategy!r}, which needs "
            f"reserved samples of the server's: {why}; in a run with a task it has none"
        )
    if settings.data.reserved_samples == 0:
        raise SettingsError(
            f"reserved-samples = 0 is not allowed with strategy {strategy!r}: {why}; "
            "try reserved-samples=100 for digits, 1000 (the paper's) for images"
        )


def reserved_tensors(settings: Settings) -> Tensors:
    """Return the server's inputs (n, *input_shape) and labels (n,), on its device."""
    dataset, device = dataset_of(settings), device_of(settings)
    x, y = reserved_samples(settings, dataset)
    inputs = torch.from_numpy(dataset.normalise(x)).to(device)
    return inputs, torch.from_numpy(y.copy()).to(device)


def batches(
    samples: int, size: int, epochs: int, rng: np.random.Generator, model: nn.Module
) -> Iterator[torch.Tensor]:
    """Yield index tensors of ``epochs`` shuffled passes over ``samples`` rows.

    Parameters
    ----------
    model : nn.Module
        That is trained; see :func:`common.moe.batches.batches_of`.
    """
    for _ in range(epochs):
        yield from batches_of(torch.from_numpy(rng.permutation(samples)), size, model)


def train_mixture(
    model: MoEModel,
    data: Tensors,
    *,
    training: TrainingSettings,
    epochs: int,
    gate_balance: float,
    rng: np.random.Generator,
    augment: Augment | None = None,
) -> None:
    """Train a mixture in place, where the samples are, which is where it stays.

    On cross-entropy plus the balancing loss.

    The optimizer starts afresh, as it does on a client, so there is no state to keep.

    Parameters
    ----------
    data : tuple of Tensor
        Inputs (n, *input_shape) and labels (n,).
    training : TrainingSettings
        With the rate of the round.
    rng : Generator
        Orders the samples.
    augment : Augment, optional
        Changes the inputs of every batch.
    """
    x, y = data
    [changes] = rng.spawn(1) if augment else [rng]
    model.to(y.device).train()
    steps = Steps([p for p in model.parameters() if p.requires_grad], training)
    for batch in batches(len(y), training.batch_size, epochs, rng, model):
        inputs = augment(x[batch], changes) if augment else x[batch]
        routed = steps.forward(model, inputs)
        loss = smoothed_cross_entropy(routed.logits, y[batch], training.label_smoothing)
        steps.take(loss + gate_balance * routed.balance_loss())
