"""All routed experts with one hidden layer as one autograd operation.

Left to autograd, every expert is eight nodes with a buffer each, and dividing the
samples among experts and joining the answers copies them twice. Here forward and
backward write into slices of shared buffers, one matrix product per expert, weight and
direction, and every separate parameter still gets a gradient of its own. The same
products in the same order give the same bits as calling the experts one by one.

Shape suffixes as in ``layer``: M positions, each routed to K experts; N = M * K, sorted
by expert; D features, O outputs, and F hidden units of an expert; n samples of one
expert.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

_PARAMETERS = 4
"""Of one expert: weight and bias of its two linear layers."""


def run_mlps(
    x_MD: torch.Tensor, experts: Sequence[Any], slots_MK: torch.Tensor
) -> torch.Tensor:
    """Do for ``MLPExpert`` what :func:`common.moe.experts.run_experts` says."""
    slots = slots_MK.flatten()
    order_N = slots.argsort(stable=True)
    counts = torch.bincount(slots, minlength=len(experts)).tolist()
    parameters: list[torch.Tensor] = []
    for expert, samples in zip(experts, counts, strict=True):
        if samples:
            hidden, out = expert.hidden, expert.out
            parameters += (hidden.weight, hidden.bias, out.weight, out.bias)
    if not parameters:  # A text of nothing but padding.
        return x_MD.new_empty(*slots_MK.shape, experts[0].out.out_features)
    kind = x_MD.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        # What is written into shared buffers is not cast for us.
        dtype = torch.get_autocast_dtype(kind)
        x_MD = x_MD.to(dtype)
        parameters = [each.to(dtype) for each in parameters]
    sizes = [samples for samples in counts if samples]
    answer: torch.Tensor = _Grouped.apply(
        x_MD, order_N, experts[0].scale, sizes, *parameters
    )
    return answer.unflatten(0, slots_MK.shape)


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_MD: torch.Tensor,
        order_N: torch.Tensor,
        scale: float,
        sizes: list[int],
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        # Contiguous slices per expert: one matrix product each, no mask, no waste.
        ctx.top_k = len(order_N) // len(x_MD)
        positions_N = order_N.div(ctx.top_k, rounding_mode="floor")
        x_ND = x_MD.index_select(0, positions_N)
        hidden_NF = x_ND.new_empty(len(x_ND), len(parameters[0]))
        out_NO = x_ND.new_empty(len(x_ND), len(parameters[2]))
        weights = range(0, len(parameters), _PARAMETERS)
        hidden = hidden_NF.split(sizes)
        for i, x_nD, hidden_nF in zip(weights, x_ND.split(sizes), hidden, strict=True):
            torch.addmm(parameters[i + 1], x_nD, parameters[i].t(), out=hidden_nF)
        hidden_NF.relu_()
        if scale != 1:
            hidden_NF.mul_(scale)
        for i, hidden_nF, out_nO in zip(
            weights, hidden, out_NO.split(sizes), strict=True
        ):
            torch.addmm(parameters[i + 3], hidden_nF, parameters[i + 2].t(), out=out_nO)
        ctx.save_for_backward(x_ND, hidden_NF, order_N, *parameters)
        ctx.scale, ctx.sizes = scale, sizes
        return torch.empty_like(out_NO).index_copy_(0, order_N, out_NO)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_ND, hidden_NF, order_N, *parameters = ctx.saved_tensors
        grad_NO = grad_NO.index_select(0, order_N)
        sizes = ctx.sizes
        weights = range(0, len(parameters), _PARAMETERS)
        gradients: list[torch.Tensor | None] = [None] * len(parameters)
        back_NF = torch.empty_like(hidden_NF)
        back = back_NF.split(sizes)
        for i, grad_nO, hidden_nF, back_nF in zip(
            weights, grad_NO.split(sizes), hidden_NF.split(sizes), back, strict=True
        ):
            gradients[i + 2] = grad_nO.t().mm(hidden_nF)
            gradients[i + 3] = grad_nO.sum(0)
            torch.mm(grad_nO, parameters[i + 2], out=back_nF)
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
        back_MD = None
        if back_ND is not None:
            back_MD = torch.empty_like(back_ND).index_copy_(0, order_N, back_ND)
            if ctx.top_k > 1:
                back_MD = back_MD.unflatten(0, (-1, ctx.top_k)).sum(1)
        return back_MD, None, None, None, *gradients
