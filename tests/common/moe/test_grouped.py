"""All experts as one operation: the bits of calling them one by one."""

import pytest
import torch

from common.moe.grouped import run_experts
from common.moe.layer import Expert

FEATURES, HIDDEN, CLASSES = 12, 20, 7


def experts(number: int, scale: float = 1.0) -> list[Expert]:
    torch.manual_seed(3)
    return [Expert(FEATURES, HIDDEN, CLASSES, scale) for _ in range(number)]


def one_by_one(
    x: torch.Tensor, members: list[Expert], counts: list[int]
) -> torch.Tensor:
    pieces = zip(members, x.split(counts), strict=True)
    return torch.cat([expert(piece) for expert, piece in pieces if len(piece)])


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(
    "counts", [[5], [16, 16], [1, 30, 33], [0, 9, 0, 2], [64, 0, 300, 7, 1]]
)
def test_answers_and_every_gradient_have_the_same_bits(
    counts: list[int], scale: float
) -> None:
    members = experts(len(counts), scale)
    x = torch.randn(sum(counts), FEATURES)
    results = []
    for run in (run_experts, one_by_one):
        leaf = x.clone().requires_grad_()
        for expert in members:
            expert.zero_grad()
        answer = run(leaf, members, counts)
        answer.square().sum().backward()
        parameters = [p for expert in members for p in expert.parameters()]
        results.append([answer, leaf.grad, *(p.grad for p in parameters)])
    for mine, reference in zip(*results, strict=True):
        # Without samples: no gradient, so the optimiser leaves the expert alone.
        assert (mine is None) == (reference is None)
        assert mine is None or torch.equal(mine, reference)


def test_gradients_are_the_slopes_of_the_answer() -> None:
    members = [expert.double() for expert in experts(3)]
    x = torch.randn(8, FEATURES, dtype=torch.float64, requires_grad=True)
    weights = [p for expert in members for p in expert.parameters()]
    assert torch.autograd.gradcheck(
        lambda x, *_: run_experts(x, members, [3, 1, 4]), (x, *weights)
    )


def test_features_that_need_no_gradient_get_none() -> None:
    members, x = experts(2), torch.randn(6, FEATURES)
    run_experts(x, members, [2, 4]).sum().backward()
    assert x.grad is None
    assert all(p.grad is not None for expert in members for p in expert.parameters())


def test_frozen_experts_are_not_trained() -> None:
    members = experts(2)
    members[0].requires_grad_(False)
    x = torch.randn(6, FEATURES, requires_grad=True)
    run_experts(x, members, [2, 4]).sum().backward()
    assert all(p.grad is None for p in members[0].parameters())
    assert all(p.grad is not None for p in members[1].parameters())


def test_without_autograd() -> None:
    members, x = experts(2), torch.randn(6, FEATURES)
    with torch.inference_mode():
        assert torch.equal(
            run_experts(x, members, [6, 0]), one_by_one(x, members, [6, 0])
        )
