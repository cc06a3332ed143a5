"""What takes the steps of training: SGD and AdamW of our own, or a user's optimizer.

When a step is taken, and with which gradients, is in ``common.steps``.

The first ``torch.optim`` optimiser of a process imports torch's compiler: measured at
6 s and 150 MiB, and on a device every message is a process of its own. A step of the
default model takes a sixth less than with ``foreach``. The updates are torch's, bit for
bit (a test says so).
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Protocol

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


PROBED = 32
"""Rows and columns of the weights that an optimizer's state is measured on."""


@lru_cache(maxsize=64)
def state_copies(settings: TrainingSettings) -> float:
    """Return what an optimizer keeps, in copies of the float32 weights it trains.

    Measured after one step on a small matrix, whoever wrote it: 1 for SGD with
    momentum, 2 for AdamW.

    Raises
    ------
    SettingsError
        If there is no such optimizer.
    """
    weight = torch.nn.Parameter(torch.zeros(PROBED, PROBED))
    weight.grad = torch.ones_like(weight)
    optimizer = find_optimizer([weight], settings)
    given = {weight.data_ptr(), weight.grad.data_ptr()}
    optimizer.step()
    kept = {
        tensor.data_ptr(): tensor.nbytes
        for tensor in _tensors_in(optimizer, set())
        if tensor.numel() > 1  # a count of steps is no copy of anything
    }
    return sum(n for at, n in kept.items() if at not in given) / weight.nbytes


def _tensors_in(value: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Yield the tensors that an object holds, however deep."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple | set):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(each, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from _tensors_in(vars(value), seen)


def sgd(parameters: Parameters, settings: TrainingSettings) -> Optimizer:
    """Return SGD with the rates of the settings."""
    return SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def adamw(parameters: Parameters, settings: TrainingSettings) -> Optimizer:
    """Return AdamW with the rates of the settings; its beta1 is ``momentum``."""
    return AdamW(
        parameters,
        lr=settings.lr,
        beta=settings.momentum,
        weight_decay=settings.weight_decay,
    )


class _OfParameters:
    """What both optimizers of ours have in common: whose gradients they follow."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._parameters = list(parameters)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None


class SGD(_OfParameters):
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
        super().__init__(parameters)
        self._lr, self._momentum, self._decay = lr, momentum, weight_decay
        self._velocity: dict[int, torch.Tensor] = {}

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


class AdamW(_OfParameters):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, Algorithm 2).

    ::

        w <- w - lr wd w
        m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
        w <- w - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    As ``torch.optim.AdamW``, with its b2 and eps.

    Parameters
    ----------
    parameters : iterable of Parameter
    lr, beta, weight_decay : float
        ``beta`` is b1.

    Notes
    -----
    A parameter without a gradient is left alone, as by :class:`SGD`; t counts its own
    steps.
    """

    BETA2 = 0.999
    EPS = 1e-8

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        beta: float,
        weight_decay: float,
    ) -> None:
        super().__init__(parameters)
        self._lr, self._beta, self._decay = lr, beta, weight_decay
        self._moments: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._steps: dict[int, int] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with the gradients at hand."""
        for index, parameter in enumerate(self._parameters):
            if (gradient := parameter.grad) is None:
                continue
            if index not in self._moments:
                first, second = (torch.zeros_like(parameter) for _ in range(2))
                self._moments[index] = first, second
            mean, square = self._moments[index]
            steps = self._steps[index] = self._steps.get(index, 0) + 1
            if self._decay:
                parameter.mul_(1 - self._lr * self._decay)
            mean.lerp_(gradient, 1 - self._beta)
            square.mul_(self.BETA2).addcmul_(gradient, gradient, value=1 - self.BETA2)
            root = (square.sqrt() / (1 - self.BETA2**steps) ** 0.5).add_(self.EPS)
            parameter.addcdiv_(mean, root, value=-self._lr / (1 - self._beta**steps))
