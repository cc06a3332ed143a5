"""The choice among models: by the loss on the client's samples, worked out here."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client_app.candidates import best_candidate, mean_loss
from common.moe import ModelSpec, Vector
from common.parts import part_of_model

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 2, 2),
    num_classes=3,
    num_experts=1,
    expert_hidden=2,
    top_k=1,
)
PARTS = ("extractor", "expert.0")
X = torch.rand(50, 1, 2, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(50) % 3


def models(count: int) -> list[dict[str, Vector]]:
    return [SPEC.initial(seed, PARTS) for seed in range(count)]


def loss_of(parts: dict[str, Vector], shift: torch.Tensor | None = None) -> float:
    model = SPEC.build([0])
    model.load(parts)
    logits = model(X).logits if shift is None else model(X).logits + shift
    return F.cross_entropy(logits, Y).item()


@pytest.mark.parametrize("shift", [None, torch.tensor([2.0, -1.0, 0.5])])
def test_it_is_the_model_of_least_loss(shift: torch.Tensor | None) -> None:
    several = models(5)
    sent = {
        part_of_model(part, number): vector
        for number, parts in enumerate(several)
        for part, vector in parts.items()
    }
    losses = [loss_of(parts, shift) for parts in several]
    number, parts = best_candidate(SPEC.build([0]), sent, (X, Y), count=5, shift=shift)
    assert number == int(np.argmin(losses))
    assert parts.keys() == set(PARTS)
    for part in PARTS:
        np.testing.assert_array_equal(parts[part], several[number][part])


def test_of_equal_models_it_is_the_first() -> None:
    [parts] = models(1)
    sent = {part_of_model(p, n): v for n in range(3) for p, v in parts.items()}
    assert best_candidate(SPEC.build([0]), sent, (X, Y), count=3)[0] == 0


def test_a_part_that_all_share_is_sent_once() -> None:
    first, second = models(2)
    sent = {**first, "model1.expert.0": second["expert.0"]}
    mixed = {"extractor": first["extractor"], "expert.0": second["expert.0"]}
    number, parts = best_candidate(SPEC.build([0]), sent, (X, Y), count=2)
    assert number == int(loss_of(mixed) < loss_of(first))
    np.testing.assert_array_equal(parts["extractor"], first["extractor"])


def test_the_mean_loss_is_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    [parts] = models(1)
    model = SPEC.build([0])
    model.load(parts)
    monkeypatch.setattr("client_app.candidates.evaluation_batch", lambda _: 7)
    assert mean_loss(model, X, Y) == pytest.approx(loss_of(parts), rel=1e-5)
