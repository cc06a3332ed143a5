"""The one home of a step: clipping by hand, 16 bits, and who goes through it."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import common
from client_app.training import Objective, evaluate, train
from common.losses import smoothed_cross_entropy
from common.moe import ModelSpec, MoEModel
from common.seeding import stream
from common.settings.training_settings import TrainingSettings
from common.steps import Steps
from tests.common.moe.support import BACKBONE_SHAPES, text_spec, texts

PLAIN: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("clip", "expected"), [(0.0, [3, 4, 12]), (26.0, [3, 4, 12]), (6.5, [1.5, 2, 6])]
)
def test_the_norm_of_all_gradients_together_is_clipped(
    clip: float, expected: list[float]
) -> None:
    # Gradients (3, 4) and (12): of norm 13.
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    frozen = nn.Parameter(torch.zeros(1))
    steps = Steps([first, second, frozen], TrainingSettings(clip_grad=clip, **PLAIN))
    steps.take(-(first @ torch.tensor([3.0, 4.0]) + 12 * second.sum()))
    found = torch.cat([first, second]).tolist()
    assert found == pytest.approx(expected, rel=1e-5)
    steps.clear()
    assert first.grad is None and frozen.item() == 0


def test_a_step_whose_gradients_overflow_in_float16_is_left_out() -> None:
    weight = nn.Parameter(torch.ones(1))
    steps = Steps([weight], TrainingSettings(precision="float16", **PLAIN))
    steps.take((weight * torch.tensor([1e36])).sum())  # times 65536 is infinite
    assert weight.item() == 1
    steps.take(weight.sum())  # the scale is halved and cancels
    assert weight.item() == 0


def test_smoothing_by_hand_and_among_the_classes_that_are_there() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.0, 0.0]])
    y, present = torch.tensor([0, 2]), torch.tensor([1.0, 0.0, 1.0])
    p = np.exp(logits.numpy())
    logs = np.log(p / p.sum(1, keepdims=True))
    own = logs[[0, 1], [0, 2]]
    every = -(0.7 * own + 0.3 * logs.mean(1)).mean()
    there = -(0.7 * own + 0.3 * logs[:, [0, 2]].mean(1)).mean()
    assert smoothed_cross_entropy(logits, y, 0.3).item() == pytest.approx(every)
    found = smoothed_cross_entropy(logits, y, 0.3, present).item()
    assert found == pytest.approx(there)
    # Together with the calibration of the loss: on the shifted logits.
    shift = torch.tensor([0.1, -2.0, 0.4])
    assert Objective(shift=shift).judged(logits, y, 0.3).item() == pytest.approx(
        smoothed_cross_entropy(logits + shift, y, 0.3).item()
    )


def spec_of(backbone: str, **changes: Any) -> ModelSpec:
    if backbone == "text-transformer":
        return text_spec(**changes)
    return ModelSpec(
        backbone=backbone,
        input_shape=BACKBONE_SHAPES[backbone],
        num_classes=3,
        num_experts=4,
        expert_hidden=8,
        top_k=2,
        **changes,
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("backbone", "changes"),
    [
        ("mlp", {}),
        ("mlp", {"mixes": "sum"}),
        ("mlp", {"mixes": "probabilities"}),
        ("cnn", {"norm": "batch"}),
        ("cnn1d", {}),
        ("text-transformer", {}),
        ("text-transformer", {"routing": "sequence", "mixes": "sum", "top_k": 2}),
    ],
)
def test_16_bits_train_what_32_do(
    precision: str, backbone: str, changes: dict[str, Any]
) -> None:
    spec = spec_of(backbone, **changes)
    x = spec.example(12)
    if spec.encoder is not None:
        x = texts(12)
    else:
        x += torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12) % 3
    models: list[MoEModel] = []
    for bits in ("float32", precision):
        settings = TrainingSettings.model_validate(
            {"precision": bits, "lr": 0.01, "batch_size": 6, "local_epochs": 1}
        )
        objective = Objective(gate_balance=0.01, gate_entropy=0.01)
        models.append(spec.build([0, 2] if spec.encoder is None else [0, 2, 4, 6]))
        result = train(
            models[-1], x, y, settings=settings, objective=objective, rng=stream(0)
        )
        assert np.isfinite(result.train_loss)
        assert evaluate(models[-1], x, y).numbers.sum() > 0
    start = spec.build(models[0].held)
    names = ["extractor", "expert.0"]
    first, *trained = (
        np.concatenate([*each.vectors(names).values()]) for each in (start, *models)
    )
    steps, rough = (each - first for each in trained)
    assert np.linalg.norm(steps) > 0
    assert np.linalg.norm(rough - steps) < 0.2 * np.linalg.norm(steps)
    assert not np.array_equal(rough, steps)  # 16 bits it was


def test_nobody_takes_a_step_elsewhere() -> None:
    # One home: what calls .backward() itself knows neither precision nor clipping.
    root = Path(common.__file__).parents[1]
    found = {
        path.relative_to(root).as_posix()
        for package in ("common", "client_app", "server_app")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr == "backward"
        and not (isinstance(node.value, ast.Attribute) and node.value.attr == "_steps")
    }
    # Speed is measured with a step of its own; private training takes the gradient of
    # each sample, and its step from there.
    assert found == {
        "common/steps.py",
        "client_app/device/speed.py",
        "client_app/dp_sgd.py",
    }
