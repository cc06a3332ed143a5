"""What takes the steps of local training: SGD of our own, or a user's optimizer.

The first ``torch.optim`` optimiser of a process imports torch's compiler: measured at
6 s and 150 MiB, and on a device every message is a process of its own. A step of the
default model takes a sixth less than with ``foreach``. The update is torch's, bit for
bit (a test says so).
"""

from collections.abc import Iterable
from typing import Protocol

import torch

from common.registry import OPTIMIZERS
from common.settings.training_settings import TrainingSettings

Parameters = list[torch.nn.Parameter]


class Optimizer(Protocol):
    """What training asks of an optimizer; all of ``torch.optim`` are such."""

    def zero_grad(self) -> None:
        """Forget all gradients."""

    def step(self) -> object:
        """Take one step with the gradients at hand."""


def find_optimizer(parameters: Parameters, settings: TrainingSettings) -> Optimizer:
    """Return the optimizer that the setting ``optimizer`` names, made for one round.

    A plug-in is a function of (list of Parameter, TrainingSettings); the class of
    :mod:`torch.optim` it makes may take ``lr``, ``momentum`` and ``weight_decay`` from
    the settings. Nothing of it is kept between rounds: the weights are others then.

    Raises
    ------
    SettingsError
        If there is none of that name, or it makes something else.
    """
    made: Optimizer = OPTIMIZERS.find(settings.optimizer)(parameters, settings)
    if not all(callable(getattr(made, name, None)) for name in ("zero_grad", "step")):
        raise OPTIMIZERS.error(
            settings.optimizer,
            f"returned a {type(made).__name__}: expected zero_grad() and step()",
        )
    return made


def sgd(parameters: Parameters, settings: TrainingSettings) -> Optimizer:
    """Return SGD with the rates of the settings."""
    return SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


class SGD:
    """``b <- m b + g + wd w``, then ``w <- w - lr b``; as ``torch.optim.SGD``.

    Parameters
    ----------
    parameters : iterable of Parameter
    lr, momentum, weight_decay : float

    Notes
    -----
    A parameter without a gradient (an expert no sample was routed to) is left alone:
    neither its weights decay nor its momentum moves.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        self._parameters = list(parameters)
        self._lr, self._momentum, self._decay = lr, momentum, weight_decay
        self._velocity: dict[int, torch.Tensor] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with the gradients at hand."""
        for index, parameter in enumerate(self._parameters):
            if (gradient := parameter.grad) is None:
                continue
            if self._decay:
                gradient = gradient.add(parameter, alpha=self._decay)
            if self._momentum:
                velocity = self._velocity.get(index)
                if velocity is None:
                    self._velocity[index] = gradient = gradient.clone()
                else:
                    gradient = velocity.mul_(self._momentum).add_(gradient)
            parameter.add_(gradient, alpha=-self._lr)
