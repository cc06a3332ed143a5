"""SGD with momentum and weight decay, without torch's optimiser machinery.

The first ``torch.optim`` optimiser of a process imports torch's compiler: measured at
about as much time and a quarter as much memory again as torch itself. On a device every
message is a process of its own. The update is torch's, bit for bit (a test says so).
"""

from collections.abc import Iterable

import torch


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
