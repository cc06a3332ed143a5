"""Training on the server's own reserved samples D^r: what Fed-MoE and CentMoE share.

The server never imports client code; its loop is small and has no per-expert
statistics to collect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from common.config import Settings
from common.moe import MoEModel
from common.sections import SettingsError, TrainingSettings
from common.shape import dataset_of, reserved_samples

Tensors = tuple[torch.Tensor, torch.Tensor]


def require_reserved(settings: Settings, strategy: str, why: str) -> None:
    """Refuse to go on without reserved samples.

    Raises
    ------
    SettingsError
        Naming the key and a value to start with.
    """
    if settings.data.reserved_samples == 0:
        raise SettingsError(
            f"reserved-samples = 0 is not allowed with strategy {strategy!r}: {why}; "
            "try reserved-samples=100 for digits, 1000 (the paper's) for images"
        )


def reserved_tensors(settings: Settings) -> Tensors:
    """Return the server's inputs (n, *input_shape) and labels (n,)."""
    dataset = dataset_of(settings)
    x, y = reserved_samples(settings, dataset)
    return torch.from_numpy(dataset.normalise(x)), torch.from_numpy(y.copy())


def batches(
    samples: int, size: int, epochs: int, rng: np.random.Generator
) -> Iterator[torch.Tensor]:
    """Yield index tensors of ``epochs`` shuffled passes over ``samples`` rows."""
    for _ in range(epochs):
        yield from torch.from_numpy(rng.permutation(samples)).split(size)


def train_mixture(
    model: MoEModel,
    data: Tensors,
    *,
    training: TrainingSettings,
    epochs: int,
    gate_balance: float,
    rng: np.random.Generator,
) -> None:
    """Train a mixture in place: SGD on cross-entropy plus the balancing loss.

    Momentum starts afresh, as it does on a client, so there is no state to keep.

    Parameters
    ----------
    data : tuple of Tensor
        Inputs (n, *input_shape) and labels (n,).
    rng : Generator
        Orders the samples.
    """
    x, y = data
    model.train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    for batch in batches(len(y), training.batch_size, epochs, rng):
        routed = model(x[batch])
        loss = F.cross_entropy(routed.logits, y[batch])
        loss = loss + gate_balance * routed.balance_loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


class Adam:
    """Adam over one flat vector, its moments plain arrays: a state that is a value.

    Kingma and Ba, arXiv 1412.6980, Algorithm 1, with their default decays.

    Parameters
    ----------
    size : int
        Parameters in all.

    Attributes
    ----------
    first, second : ndarray of float32, shape (size,)
        Running means of the gradient and of its square.
    steps : int
    """

    def __init__(self, size: int) -> None:
        self.first: NDArray[np.float32] = np.zeros(size, dtype=np.float32)
        self.second: NDArray[np.float32] = np.zeros(size, dtype=np.float32)
        self.steps = 0

    @torch.no_grad()
    def step(
        self,
        parameters: Sequence[nn.Parameter],
        gradients: Sequence[torch.Tensor],
        lr: float,
    ) -> None:
        """Move the parameters along their gradients."""
        gradient = parameters_to_vector(gradients)
        self.steps += 1
        # New tensors, never in place: a checkpoint may hold the old ones.
        first = 0.9 * torch.from_numpy(self.first) + 0.1 * gradient
        second = 0.999 * torch.from_numpy(self.second) + 0.001 * gradient**2
        self.first, self.second = first.numpy(), second.numpy()
        spread = (second / (1 - 0.999**self.steps)).sqrt() + 1e-8
        change = lr * first / (1 - 0.9**self.steps) / spread
        vector_to_parameters(parameters_to_vector(parameters) - change, parameters)
