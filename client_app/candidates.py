"""Which of several models fits a client's data best (IFCA, Algorithm 1, line 8)."""

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from client_app.sample_tensors import Tensors
from common.cost import evaluation_batch
from common.moe import MoEModel, Vector
from common.moe.counting import Batches
from common.parts import part_of_model


def best_candidate(
    model: MoEModel,
    vectors: Mapping[str, Vector],
    samples: Tensors,
    *,
    count: int,
    shift: torch.Tensor | None = None,
) -> tuple[int, dict[str, Vector]]:
    """Return the number of the model with the least loss on a client's samples.

    Parameters
    ----------
    model : MoEModel
        Of their shape; is left with the parts of the last one.
    vectors : mapping of str to vector
        Parts of all models; one that model j does not have of its own is model 0's.
    samples : inputs of shape (n, *input_shape), and labels of shape (n,)
    count : int
        How many models there are, at least 1.
    shift : Tensor, shape (C,), optional
        Added to the logits, as in the loss that is trained.

    Returns
    -------
    int
        j, the first of equals.
    dict of str to vector
        The parts of this model, under their plain names.
    """
    found: list[tuple[float, int, dict[str, Vector]]] = []
    for number in range(count):
        parts = {
            part: vectors.get(part_of_model(part, number), vectors[part])
            for part in model.parts()
            if part in vectors
        }
        model.load(parts)
        found.append((mean_loss(model, *samples, shift), number, parts))
    _, best, parts = min(found, key=lambda each: each[:2])
    return best, parts


@torch.inference_mode()
def mean_loss(
    model: MoEModel,
    x: Batches,
    y: torch.Tensor,
    shift: torch.Tensor | None = None,
) -> float:
    """Return the mean cross-entropy of a model's answers, in nats."""
    model.eval()
    total, batch = 0.0, evaluation_batch(model.spec)
    for start in range(0, len(y), batch):
        rows = slice(start, start + batch)
        logits = model(x[rows]).logits
        if shift is not None:
            logits = logits + shift
        total += float(F.cross_entropy(logits, y[rows], reduction="sum"))
    return total / max(1, len(y))
