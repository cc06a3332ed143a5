"""A trained model ready to answer, and where newer ones come from."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.data import Tokeniser
from common.errors import DataError, SettingsError
from common.inputs import InputError, prepare
from common.moe.ensemble import explaining
from common.task import Task, TextTask

BATCH = 256
"""Samples computed together where nobody asked for another number."""

NAMED = 10
"""Classes whose names are told at the start."""


class Predictions(NamedTuple):
    """Answers to B samples.

    Attributes
    ----------
    probabilities : ndarray of float32, shape (B, C)
    classes : ndarray of int64, shape (B,)
        The likeliest ones.
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
    task : Task
        What it was trained for: kind, shape, scale and classes of its samples.
    run, server_round : str, int
        Name of the run that trained it, and the last round it went through.
    experts : tuple of int
        Global ids of the experts in it.
    find_tokeniser : Callable[[], Tokeniser] or None
        Returns what made token ids of texts in training; only asked when a text comes.
    """

    predictor: nn.Module
    task: Task
    run: str
    server_round: int
    experts: tuple[int, ...]
    find_tokeniser: Callable[[], Tokeniser] | None = None

    def __post_init__(self) -> None:
        self.predictor.eval()

    @property
    def name(self) -> str:
        """Run and round, for people."""
        return f"{self.run}, round {self.server_round}"

    @property
    def task_in_words(self) -> str:
        """Kind, shape and classes, for people."""
        task, names = self.task, ", ".join(self.task.classes[:NAMED])
        more = ", ..." if task.num_classes > NAMED else ""
        shape = " x ".join(map(str, task.input_shape))
        return f"{task.kind} of {shape}, {task.num_classes} classes ({names}{more})"

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters and buffers."""
        tensors = [*self.predictor.parameters(), *self.predictor.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @cached_property
    def tokeniser(self) -> Tokeniser:
        """What makes token ids of texts.

        Raises
        ------
        InputError
            If the model takes no texts, or its checkpoint's own tokeniser is not here.
        """
        if not isinstance(self.task, TextTask):
            raise InputError(f"the model takes no texts: its task is {self.task.kind}")
        if self.find_tokeniser is None:
            raise InputError("texts cannot be read: the model has no tokeniser here")
        try:
            return self.find_tokeniser()
        except (SettingsError, DataError) as error:
            raise InputError(f"texts cannot be read: {error}") from None

    def encode(self, texts: Iterable[str]) -> NDArray[Any]:
        """Return the token ids of texts, shape (B, length); see :attr:`tokeniser`."""
        return self.tokeniser.encode(texts)

    def names_of(self, classes: Iterable[int]) -> list[str]:
        """Return the names of classes by their numbers."""
        return [self.task.classes[number] for number in classes]

    def predict(self, x: NDArray[Any], batch: int = BATCH) -> Predictions:
        """Answer samples as stored; raises InputError if they do not fit."""
        return self.answer(torch.from_numpy(prepare(self.task, x)), batch)

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


class ModelSource(Protocol):
    """Where the newest version of a model is found."""

    def version(self) -> Hashable:
        """Return something that changes with the model, cheaply; SourceError if none.

        A version must name a model completely: it is asked for again and again while
        a training run writes beside it.
        """

    def load(self) -> Servable:
        """Return the newest model; SourceError if there is none that can be used."""
