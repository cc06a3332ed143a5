"""The mixture layer against a naive loop over samples and experts."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from common.moe import MoELayer, Routing, mean_entropy

BATCH, FEATURES, CLASSES, EXPERTS = 13, 6, 3, 8


def layer(held: tuple[int, ...], top_k: int) -> MoELayer:
    torch.manual_seed(0)
    return MoELayer(
        in_features=FEATURES,
        hidden=5,
        out_features=CLASSES,
        num_experts=EXPERTS,
        held=held,
        top_k=top_k,
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
