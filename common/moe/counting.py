"""Counting a model's answers class by class, a batch at a time."""

from collections.abc import Callable
from typing import Protocol

import torch

from common.class_counts import ClassCounts


class Batches(Protocol):
    """A tensor, or what makes a tensor of the samples that are asked for."""

    def __getitem__(self, rows: slice, /) -> torch.Tensor:
        """Return samples of shape (B, *input_shape)."""


@torch.inference_mode()
def count_answers(
    predict: Callable[[torch.Tensor], torch.Tensor],
    x: Batches,
    y: torch.Tensor,
    *,
    num_classes: int,
    batch: int,
) -> ClassCounts:
    """Return what a model answers to samples.

    Parameters
    ----------
    predict : callable
        Inputs (B, *input_shape) to one number per class (B, C); the largest is the
        answer. A module is to be in evaluation mode.
    x : Tensor, shape (n, *input_shape), or what gives its rows
    y : Tensor of int, shape (n,)
        May be empty.
    num_classes : int
    batch : int
        Samples at once.
    """
    answers = torch.zeros_like(y)
    for start in range(0, len(y), batch):
        rows = slice(start, start + batch)
        answers[rows] = predict(x[rows]).argmax(1)
    return ClassCounts.of(y.cpu().numpy(), answers.cpu().numpy(), num_classes)
