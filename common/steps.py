"""The one home of a training step: precision, gradients, clipping, the optimizer.

Whatever is trained, on a device or on the server, is trained by :class:`Steps`. What is
minimised, and over which batches, is said where it is called.

Mixed precision: the forward pass computes in 16 bits where torch finds it safe
(``torch.autocast``); weights, their gradients, every loss and all statistics are
float32. The gradients of float16 underflow, so its losses are scaled, and steps whose
gradients overflow are left out (Micikevicius et al., ICLR 2018). The scale begins anew
in every round, as the optimizer does.
"""

from collections.abc import Iterable

import torch

from common.moe import MoEModel, Routed
from common.optimizers import Optimizer, find_optimizer
from common.settings.training_settings import TrainingSettings


class Steps:
    """Takes steps with some parameters as the settings say.

    Parameters
    ----------
    parameters : iterable of Parameter
        All on one device; at least one.
    settings : TrainingSettings
        With the rate of the round, see ``Settings.training_in``.
    optimizer : Optimizer, optional
        Of the same parameters, where an algorithm brings its own; else the one the
        settings name.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        settings: TrainingSettings,
        optimizer: Optimizer | None = None,
    ) -> None:
        self._parameters = list(parameters)
        self._clip = settings.clip_grad
        self._optimizer = optimizer or find_optimizer(self._parameters, settings)
        device = self._parameters[0].device
        self._dtype = precision_on(device, settings)
        self._scaled: _Scaled | None = None
        if self._dtype == torch.float16:
            self._scaled = _Scaled(self._parameters, self._optimizer, device)

    def forward(self, model: MoEModel, x: torch.Tensor) -> Routed:
        """Return a pass of a model in the precision of the settings, as float32."""
        if self._dtype == torch.float32:
            routed: Routed = model(x)
            return routed
        with torch.autocast(x.device.type, dtype=self._dtype):
            routed = model(x)
        return routed.float32()

    def take(self, loss: torch.Tensor) -> None:
        """Take one step down the gradient of a loss."""
        self.backward(loss)
        self.unscale()
        self.step()

    def backward(self, loss: torch.Tensor) -> None:
        """Put the gradients of a loss in place of those there are, scaled as yet."""
        self.clear()
        if self._scaled is not None:
            loss = self._scaled.scaler.scale(loss)
        loss.backward()

    def unscale(self) -> None:
        """Bring the gradients at hand to the scale of the loss."""
        if self._scaled is not None:
            self._scaled.scaler.unscale_(self._scaled)  # type: ignore[arg-type]

    def step(self) -> None:
        """Clip the gradients at hand, and take a step with them."""
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        if self._scaled is None:
            self._optimizer.step()
            return
        self._scaled.scaler.step(self._scaled)  # type: ignore[arg-type]
        self._scaled.scaler.update()

    def clear(self) -> None:
        """Forget all gradients: of every weight they are a copy of the model."""
        self._optimizer.zero_grad()


class _Scaled:
    """An optimizer as torch's scaler of gradients knows one, whoever wrote it."""

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        optimizer: Optimizer,
        device: torch.device,
    ) -> None:
        self.scaler = torch.amp.GradScaler(device.type)
        self.param_groups = [{"params": parameters}]
        self.step = optimizer.step


def precision_on(device: torch.device, settings: TrainingSettings) -> torch.dtype:
    """Return what a device computes forward passes in.

    ``auto`` is bfloat16 on a GPU that has it, float16 on one that has not, and float32
    on a processor, where 16 bits are seldom faster.
    """
    match settings.precision:
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            return torch.float16
        case "auto" if device.type == "cuda":
            has = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if has else torch.float16
    return torch.float32
