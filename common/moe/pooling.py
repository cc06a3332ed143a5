"""Max-pooling over windows of 2 x 2, as fast as the convolutions around it.

On a processor torch walks over the windows value by value and notes where each largest
one was, a quarter of the time of a small convolutional network. Here whole rows are
compared with the rows below them, and then columns: what vector units are made for.
Elsewhere, and in an exported graph, it is torch's own operation.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class MaxPool2x2(nn.Module):
    """``nn.MaxPool2d(2)``: the same answers, and the same slopes where none are equal.

    Of equal largest values of a window one gets the slope, not always the first. After
    a ReLU only zeros are equal, and no slope passes them.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H // 2, W // 2), H and W of at least 2."""
        height, width = x.shape[-2:]
        if (
            x.device.type != "cpu"
            or x.dtype != torch.float32
            or min(height, width) < 2  # an error that torch words
            or torch.compiler.is_exporting()
        ):
            return F.max_pool2d(x, 2)
        if height % 2 or width % 2:
            x = x[..., : height // 2 * 2, : width // 2 * 2]
        pooled: torch.Tensor = _MaxPool.apply(x)
        return pooled


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        ctx.save_for_backward(x, rows)
        return torch.maximum(rows[..., ::2], rows[..., 1::2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        x, rows = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward
        # Where the second of two is larger it gets the slope, else the first does.
        right = passed(grad, rows[..., 1::2] - rows[..., ::2], 0)
        # Pairs of numbers side by side, written in one pass.
        back_rows = torch.view_as_real(torch.complex(grad - right, right)).flatten(-2)
        back = torch.empty_like(x)
        lower = back[..., 1::2, :]
        passed.grad_input(
            back_rows, x[..., 1::2, :] - x[..., ::2, :], 0, grad_input=lower
        )
        torch.sub(back_rows, lower, out=back[..., ::2, :])
        return back
