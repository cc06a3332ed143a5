"""Pooling against torch's own operation."""

import pytest
import torch
from torch import nn

from common.moe.pooling import MaxPool2x2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(2, 2), (8, 6), (7, 5), (3, 2)])
def test_answers_and_slopes_have_the_same_bits(
    size: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, *size).to(memory_format=layout)
    weight = torch.randn(3, 4, size[0] // 2, size[1] // 2)
    results = []
    for pool in (MaxPool2x2(), nn.MaxPool2d(2)):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        answer = pool(leaf)
        (answer * weight).sum().backward()
        results.append((answer, leaf.grad))
    for mine, reference in zip(*results, strict=True):
        assert torch.equal(mine, reference)


def test_one_of_equal_values_gets_the_slope() -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    MaxPool2x2()(x).sum().backward()
    assert x.grad is not None
    windows = x.grad[0, 0].unfold(0, 2, 2).unfold(1, 2, 2)
    torch.testing.assert_close(windows.sum((2, 3)), torch.ones(2, 2))
    assert set(x.grad.flatten().tolist()) == {0.0, 1.0}


def test_nan_is_the_largest_value_of_its_window() -> None:
    x = torch.tensor([[[[1.0, 2.0], [torch.nan, 4.0]]]])
    assert MaxPool2x2()(x).isnan().all()


def test_other_numbers_and_too_small_images_are_torch_s() -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    assert torch.equal(MaxPool2x2()(x), nn.MaxPool2d(2)(x))
    with pytest.raises(RuntimeError, match="too small"):
        MaxPool2x2()(torch.randn(1, 2, 1, 4))


def test_an_exported_graph_holds_one_operation() -> None:
    x = torch.randn(1, 2, 4, 4)
    program = torch.export.export(MaxPool2x2(), (x,))
    [call] = [n for n in program.graph.nodes if n.op == "call_function"]
    assert "max_pool2d" in str(call.target)
    assert torch.equal(program.module()(x), MaxPool2x2()(x))
