"""Experts run together or one by one: the bits of a mask for each of them."""

from typing import Any

import pytest
import torch

from common.moe.experts import MLPExpert, one_by_one, run_experts

FEATURES, HIDDEN, CLASSES = 12, 20, 7


def experts(number: int, scale: float = 1.0) -> list[MLPExpert]:
    torch.manual_seed(3)
    return [MLPExpert(FEATURES, HIDDEN, CLASSES, scale) for _ in range(number)]


def by_masks(
    x: torch.Tensor, members: list[MLPExpert], slots: torch.Tensor
) -> torch.Tensor:
    """Return (M, K, O): a mask for each expert, and where its answers belong."""
    pieces, places = [], []
    for slot, expert in enumerate(members):
        place = (slots == slot).nonzero()
        if len(place):
            pieces.append(expert(x[place[:, 0]]))
            places.append(place[:, 0] * slots.shape[1] + place[:, 1])
    return torch.cat(pieces)[torch.cat(places).argsort()].unflatten(0, slots.shape)


def split(counts: list[int]) -> torch.Tensor:
    """Return the experts' numbers (M, 1), each as often as it says, in any order."""
    slots = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return slots[torch.randperm(len(slots))][:, None]


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(
    "counts", [[5], [16, 16], [1, 30, 33], [0, 9, 0, 2], [64, 0, 300, 7, 1]]
)
def test_answers_and_every_gradient_have_the_same_bits(
    counts: list[int], scale: float
) -> None:
    check_bits(split(counts), len(counts), scale)


@pytest.mark.parametrize("top_k", [2, 3, 5])
def test_the_same_bits_for_several_experts_a_position(top_k: int) -> None:
    slots = torch.rand(40, 5).topk(top_k, 1).indices
    check_bits(slots, 5, 1.0, exactly=top_k == 2)


def check_bits(
    slots: torch.Tensor, number: int, scale: float, exactly: bool = True
) -> None:
    members = experts(number, scale)
    x = torch.randn(len(slots), FEATURES)
    results: list[Any] = []
    for run in (run_experts, one_by_one, by_masks):
        leaf = x.clone().requires_grad_()
        for expert in members:
            expert.zero_grad()
        answer = run(leaf, members, slots)
        answer.square().sum().backward()
        parameters = [p for expert in members for p in expert.parameters()]
        results.append([answer, *(p.grad for p in parameters), leaf.grad])
    *found, expected = results
    for *same, features in found:
        for mine, other in zip(same, expected, strict=False):
            # Without samples: no gradient, so the optimiser leaves the expert alone.
            assert (mine is None) == (other is None)
            assert mine is None or torch.equal(mine, other)
        # A position's slope is a sum over its experts: of three, in any order.
        if exactly:
            assert torch.equal(features, expected[-1])
        torch.testing.assert_close(features, expected[-1])


def test_gradients_are_the_slopes_of_the_answer() -> None:
    members = [expert.double() for expert in experts(3)]
    x = torch.randn(8, FEATURES, dtype=torch.float64, requires_grad=True)
    weights = [p for expert in members for p in expert.parameters()]
    slots = torch.rand(8, 3).topk(2, 1).indices
    assert torch.autograd.gradcheck(
        lambda x, *_: run_experts(x, members, slots), (x, *weights)
    )


def test_features_that_need_no_gradient_get_none() -> None:
    members, x = experts(2), torch.randn(6, FEATURES)
    run_experts(x, members, split([2, 4])).sum().backward()
    assert x.grad is None
    assert all(p.grad is not None for expert in members for p in expert.parameters())


def test_frozen_experts_are_not_trained() -> None:
    members = experts(2)
    members[0].requires_grad_(False)
    x = torch.randn(6, FEATURES, requires_grad=True)
    run_experts(x, members, split([2, 4])).sum().backward()
    assert all(p.grad is None for p in members[0].parameters())
    assert all(p.grad is not None for p in members[1].parameters())


def test_without_autograd() -> None:
    members, x, slots = experts(2), torch.randn(6, FEATURES), split([6, 0])
    with torch.inference_mode():
        assert torch.equal(run_experts(x, members, slots), by_masks(x, members, slots))


@pytest.mark.parametrize("run", [run_experts, one_by_one])
def test_nothing_to_route_reaches_no_expert(run: Any) -> None:
    members, x = experts(2), torch.randn(0, FEATURES, requires_grad=True)
    answer = run(x, members, torch.empty(0, 1, dtype=torch.long))
    assert answer.shape == (0, 1, CLASSES)
    assert not answer.requires_grad


def test_an_expert_without_a_way_to_run_together_runs_one_by_one() -> None:
    members = [torch.nn.Linear(FEATURES, CLASSES) for _ in range(2)]
    x = torch.randn(3, FEATURES)
    answer = run_experts(x, members, torch.tensor([[1], [0], [1]]))
    expected = [members[1](x[0]), members[0](x[1]), members[1](x[2])]
    torch.testing.assert_close(answer[:, 0], torch.stack(expected))
