"""The mixture layer against a naive loop over samples and experts."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from common.moe import Exploration, MoELayer, Routing, mean_entropy

BATCH, FEATURES, CLASSES, EXPERTS = 13, 6, 3, 8


def layer(held: tuple[int, ...], top_k: int, **more: Any) -> MoELayer:
    torch.manual_seed(0)
    return MoELayer(
        in_features=FEATURES,
        hidden=5,
        out_features=CLASSES,
        num_experts=EXPERTS,
        held=held,
        top_k=top_k,
        **more,
    )


def naive(moe: MoELayer, x: torch.Tensor) -> torch.Tensor:
    """Mask with -inf, softmax, pick, weigh: one sample and one expert at a time."""
    rows = []
    held = [int(e) for e in moe.experts]
    for sample in x:
        logits = moe.gate(sample)
        masked = torch.full_like(logits, -torch.inf)
        masked[held] = logits[held]
        probs = masked.softmax(0)
        chosen = sorted(held, key=lambda e: -float(probs[e]))[: moe.top_k]
        rows.append(sum(probs[e] * moe.experts[str(e)](sample) for e in chosen))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("held", "top_k"),
    [((0, 3, 7), 1), ((0, 3, 7), 2), ((0, 3, 7), 0), ((5,), 1), (tuple(range(8)), 3)],
)
def test_equals_the_naive_loop_forward_and_backward(
    held: tuple[int, ...], top_k: int
) -> None:
    moe, x = layer(held, top_k), torch.randn(BATCH, FEATURES)
    expected = naive(moe, x)
    output, _ = moe(x)
    torch.testing.assert_close(output, expected)
    y = torch.arange(BATCH) % CLASSES
    grads = []
    for logits in (output, expected):
        moe.zero_grad()
        F.cross_entropy(logits, y).backward()
        grads.append(
            [
                torch.zeros(1) if p.grad is None else p.grad.clone()
                for p in moe.parameters()
            ]
        )
    for mine, reference in zip(*grads, strict=True):
        torch.testing.assert_close(mine.sum(), reference.sum(), atol=1e-5, rtol=1e-4)


def test_only_held_experts_are_allocated() -> None:
    moe = layer((2, 5), 1)
    assert list(moe.experts) == ["2", "5"]
    assert moe.gate.weight.shape == (EXPERTS, FEATURES)


def test_top_k_beyond_the_held_experts_routes_to_all() -> None:
    assert layer((1, 2), 4).top_k == 2


def test_every_sample_is_routed_to_distinct_experts_top_k_times() -> None:
    _, routed = layer((0, 2, 4, 6), 2)(torch.randn(BATCH, FEATURES))
    assert routed.slots.shape == (BATCH, 2)
    assert all(len(set(row)) == 2 for row in routed.slots.tolist())
    assert int(routed.slots.min()) >= 0 and int(routed.slots.max()) < 4


@pytest.mark.parametrize("top_k", [1, 2, 0])
def test_statistics_come_from_the_experts_the_sample_was_routed_to(top_k: int) -> None:
    moe, x = layer((1, 4, 6), top_k), torch.randn(BATCH, FEATURES)
    _, routed = moe(x)
    held = list(moe.experts.values())
    assert routed.expert_logits is not None
    for sample, rows, slots in zip(x, routed.expert_logits, routed.slots, strict=True):
        for row, slot in zip(rows, slots, strict=True):
            torch.testing.assert_close(row, held[int(slot)](sample))


def test_balance_loss_is_one_when_even_and_the_number_held_when_collapsed() -> None:
    def of(probs: list[list[float]], slots: list[list[int]]) -> float:
        n = len(slots)
        return float(
            Routing(
                slots=torch.tensor(slots),
                held_probs=torch.tensor(probs),
                gate_logits=torch.zeros(n, 2),
            ).balance_loss()
        )

    assert of([[0.5, 0.5], [0.5, 0.5]], [[0], [1]]) == pytest.approx(1.0)
    assert of([[1.0, 0.0], [1.0, 0.0]], [[0], [0]]) == pytest.approx(2.0)
    # Everything to both: an even split, whatever the gate weighs them by.
    assert of([[0.9, 0.1], [0.7, 0.3]], [[0, 1], [0, 1]]) == pytest.approx(1.0)


def test_entropy_by_hand() -> None:
    _, routed = layer((0, 1), 1)(torch.randn(4, FEATURES))
    p = routed.held_probs
    by_hand = sum(
        -float(p[i, j]) * float(torch.log(p[i, j]))
        for i, j in itertools.product(range(4), range(2))
    )
    assert float(routed.entropy()) == pytest.approx(by_hand / 4, abs=1e-6)


def test_the_entropy_of_a_sure_gate_is_zero_with_finite_gradients() -> None:
    logits = torch.tensor([[300.0, 0.0], [0.0, 0.0]], requires_grad=True)
    entropy = mean_entropy(logits.softmax(1))
    entropy.backward()
    assert entropy.item() == pytest.approx(math.log(2) / 2)  # of (1, 0) and (1/2, 1/2)
    torch.testing.assert_close(logits.grad, torch.zeros(2, 2))  # a minimum, a maximum


def explored(moe: MoELayer, share: float, seed: int = 0) -> torch.Tensor:
    """Slots of 4000 positions while the layer trains and explores."""
    generator = torch.Generator().manual_seed(seed)
    moe.exploration = Exploration(share=share, generator=generator)
    x = torch.ones(4000, FEATURES)
    slots: torch.Tensor = moe(x, drawn_MK=moe.draw(len(x)))[1].slots
    return slots


@pytest.mark.parametrize("top_k", [1, 2])
def test_exploration_sends_a_share_to_distinct_experts_drawn_alike(top_k: int) -> None:
    moe = layer((0, 3, 7, 6), top_k)
    chosen = moe(torch.ones(1, FEATURES))[1].slots[0]
    slots = explored(moe, share=0.4)
    assert all(len(set(row)) == top_k for row in slots.tolist())
    count = torch.bincount(slots.flatten(), minlength=4) / 4000
    for slot in range(4):
        wanted = 0.4 * top_k / 4 + 0.6 * (slot in chosen)
        assert count[slot] == pytest.approx(wanted, abs=0.04)


def test_exploration_is_for_training_and_for_gates_that_have_a_choice() -> None:
    moe = layer((0, 3), top_k=1)
    assert len(explored(moe, share=1.0).unique()) == 2
    assert torch.equal(explored(moe, 0.5, seed=1), explored(moe, 0.5, seed=1))
    moe.eval()
    assert moe.draw(5) is None
    for held, top_k in (((5,), 1), ((0, 3), 2), ((0, 3), 0)):
        soft = layer(held, top_k)
        soft.exploration = moe.exploration
        assert soft.draw(5) is None


def test_an_expert_that_is_tried_speaks_as_loud_as_any() -> None:
    moe, x = layer((0, 3), top_k=1), torch.ones(1, FEATURES)
    with torch.no_grad():
        moe.gate.bias[0] += 9.0
    probs = moe(x)[1].held_probs[0]
    assert probs[1] < 0.01
    tried, _ = moe(x, drawn_MK=torch.tensor([[1]]))
    # Half of two experts, whatever its gate thinks of it.
    torch.testing.assert_close(tried, moe.experts["3"](x) / 2)
    # What the gate does choose is weighted as always, drawn or not.
    usual, _ = moe(x)
    drawn, _ = moe(x, drawn_MK=torch.tensor([[0]]))
    torch.testing.assert_close(usual, drawn)
    torch.testing.assert_close(usual, moe(x, drawn_MK=torch.tensor([[-1]]))[0])
    # The gate learns from it what it would have learnt by choosing it.
    tried.sum().backward()
    weight = moe(x)[1].held_probs[0, 1]
    [wanted] = torch.autograd.grad(
        weight * moe.experts["3"](x).sum().detach(), moe.gate.weight
    )
    torch.testing.assert_close(moe.gate.weight.grad, wanted)


@pytest.mark.parametrize("held", [(2, 7), (0, 1), (4,)])
def test_a_sum_is_of_all_held_experts_whatever_the_gate(held: tuple[int, ...]) -> None:
    moe, x = layer(held, top_k=2, mixes="sum"), torch.randn(BATCH, FEATURES)
    gate: Any = moe.gate
    with torch.no_grad():
        gate.banks.copy_(torch.tensor([1.0, -2.0]))
    output, _ = moe(x)
    # One of two experts stands for both.
    each = [expert(x) for expert in moe.experts.values()]
    torch.testing.assert_close(output, sum(each) * 2 / len(held))
    output.sum().backward()
    assert gate.banks.grad is None


def test_in_use_a_sum_is_weighed_by_the_gate_of_its_banks() -> None:
    moe, x = layer((2, 7), top_k=2, mixes="sum").eval(), torch.randn(BATCH, FEATURES)
    gate: Any = moe.gate
    with torch.no_grad():
        gate.banks.copy_(torch.tensor([math.log(3), 0.0]))
    output, _ = moe(x)
    # Expert 2 is of bank 0 and has 3 parts of 4, expert 7 of bank 1.
    expected = 2 * (0.75 * moe.experts["2"](x) + 0.25 * moe.experts["7"](x))
    torch.testing.assert_close(output, expected)
