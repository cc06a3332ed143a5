"""The routed experts as one autograd operation.

Left to autograd, every expert is eight nodes with a buffer each, and dividing the
samples among experts and joining the answers copies them twice. Here forward and
backward write into slices of shared buffers, one matrix product per expert, weight and
direction, and every separate parameter still gets a gradient of its own. The same
products in the same order give the same bits as calling the experts one by one.

Shape suffixes as in ``layer``: N routed samples, sorted by expert; D features, C
classes, and F hidden units of an expert; n samples of one expert.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

_PARAMETERS = 4
"""Of one expert: weight and bias of its two linear layers."""


def run_experts(
    x_ND: torch.Tensor, experts: Sequence[Any], counts: Sequence[int]
) -> torch.Tensor:
    """Run experts on consecutive slices of the samples.

    Parameters
    ----------
    x_ND : Tensor, shape (N, D)
        Samples of the first expert, then those of the second, and so on.
    experts : sequence of Expert
        Equal in shape and scale.
    counts : sequence of int
        Samples of each expert; they add up to N. One without samples takes no part,
        and its parameters get no gradient.

    Returns
    -------
    Tensor, shape (N, C)
    """
    parameters: list[torch.Tensor] = []
    for expert, samples in zip(experts, counts, strict=True):
        if samples:
            hidden, out = expert.hidden, expert.out
            parameters += (hidden.weight, hidden.bias, out.weight, out.bias)
    sizes = [samples for samples in counts if samples]
    answer: torch.Tensor = _Grouped.apply(x_ND, experts[0].scale, sizes, *parameters)
    return answer


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: torch.Tensor,
        scale: float,
        sizes: list[int],
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        hidden_NF = x_ND.new_empty(len(x_ND), len(parameters[0]))
        out_NC = x_ND.new_empty(len(x_ND), len(parameters[2]))
        weights = range(0, len(parameters), _PARAMETERS)
        hidden = hidden_NF.split(sizes)
        for i, x_nD, hidden_nF in zip(weights, x_ND.split(sizes), hidden, strict=True):
            torch.addmm(parameters[i + 1], x_nD, parameters[i].t(), out=hidden_nF)
        hidden_NF.relu_()
        if scale != 1:
            hidden_NF.mul_(scale)
        for i, hidden_nF, out_nC in zip(
            weights, hidden, out_NC.split(sizes), strict=True
        ):
            torch.addmm(parameters[i + 3], hidden_nF, parameters[i + 2].t(), out=out_nC)
        ctx.save_for_backward(x_ND, hidden_NF, *parameters)
        ctx.scale, ctx.sizes = scale, sizes
        return out_NC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NC: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_ND, hidden_NF, *parameters = ctx.saved_tensors
        sizes = ctx.sizes
        weights = range(0, len(parameters), _PARAMETERS)
        gradients: list[torch.Tensor | None] = [None] * len(parameters)
        back_NF = torch.empty_like(hidden_NF)
        back = back_NF.split(sizes)
        for i, grad_nC, hidden_nF, back_nF in zip(
            weights, grad_NC.split(sizes), hidden_NF.split(sizes), back, strict=True
        ):
            gradients[i + 2] = grad_nC.t().mm(hidden_nF)
            gradients[i + 3] = grad_nC.sum(0)
            torch.mm(grad_nC, parameters[i + 2], out=back_nF)
        if ctx.scale != 1:
            back_NF.mul_(ctx.scale)
        # What the rectifier lets through, its sign unchanged by a positive scale.
        torch.ops.aten.threshold_backward.grad_input(
            back_NF, hidden_NF, 0, grad_input=back_NF
        )
        back_ND = torch.empty_like(x_ND) if ctx.needs_input_grad[0] else None
        backs: Sequence[torch.Tensor | None] = [None] * len(sizes)
        if back_ND is not None:
            backs = back_ND.split(sizes)
        for i, x_nD, back_nF, back_nD in zip(
            weights, x_ND.split(sizes), back, backs, strict=True
        ):
            gradients[i] = back_nF.t().mm(x_nD)
            gradients[i + 1] = back_nF.sum(0)
            if back_nD is not None:
                torch.mm(back_nF, parameters[i], out=back_nD)
        return back_ND, None, None, *gradients
