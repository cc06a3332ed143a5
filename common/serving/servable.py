"""A trained model ready to answer, and where newer ones come from."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.inputs import Inputs
from common.moe.ensemble import explaining

BATCH = 256
"""Samples computed together where nobody asked for another number."""


class SourceError(ValueError):
    """There is no usable model where one was looked for; the message says why."""


class Predictions(NamedTuple):
    """Answers to B samples.

    Attributes
    ----------
    probabilities : ndarray of float32, shape (B, C)
    classes : ndarray of int64, shape (B,)
        The likeliest class.
    experts : ndarray of int64, shape (B,)
        Global id of the expert that answered, -1 where the model has none to name.
    """

    probabilities: NDArray[np.float32]
    classes: NDArray[np.int64]
    experts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Servable:
    """One version of a model with what it takes and where it is from.

    Attributes
    ----------
    predictor : nn.Module
        Inputs (B, *input_shape) to class probabilities (B, C).
    inputs : Inputs
    run : str
        Name of the run that trained it.
    server_round : int
        The last round it went through.
    experts : tuple of int
        Global ids of the experts in it.
    """

    predictor: nn.Module
    inputs: Inputs
    run: str
    server_round: int
    experts: tuple[int, ...]

    def __post_init__(self) -> None:
        self.predictor.eval()

    @property
    def name(self) -> str:
        """Run and round, for people."""
        return f"{self.run}, round {self.server_round}"

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters and buffers."""
        tensors = [*self.predictor.parameters(), *self.predictor.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def predict(self, x: NDArray[Any], batch: int = BATCH) -> Predictions:
        """Answer samples as stored; raises InputError if they do not fit."""
        return self.answer(torch.from_numpy(self.inputs.prepare(x)), batch)

    @torch.inference_mode()
    def answer(self, x: torch.Tensor, batch: int = BATCH) -> Predictions:
        """Answer prepared samples (B, *input_shape), ``batch`` at a time."""
        predictor = explaining(self.predictor)
        answers = [predictor.answer(part) for part in x.split(batch)]
        probabilities = torch.cat([a.probabilities for a in answers]).float()
        return Predictions(
            probabilities.numpy(),
            probabilities.argmax(1).numpy(),
            torch.cat([a.experts for a in answers]).numpy(),
        )


class Source(Protocol):
    """Where the newest version of a model is found."""

    def version(self) -> Hashable:
        """Return something that changes with the model, cheaply; SourceError if none.

        A version must name a model completely: it is asked for again and again while
        a training run writes beside it.
        """

    def load(self) -> Servable:
        """Return the newest model; SourceError if there is none that can be used."""
