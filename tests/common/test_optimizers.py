"""Our SGD against torch's, bit for bit, and what a device process must not import."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from client_app.training import Objective, train
from common.errors import SettingsError
from common.moe import ModelSpec
from common.optimizers import SGD, AdamW, find_optimizer
from common.seeding import stream
from common.settings.training_settings import TrainingSettings


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_equals_torch_bit_for_bit(
    name: str, momentum: float, weight_decay: float
) -> None:
    torch.manual_seed(0)
    mine = [torch.nn.Parameter(torch.randn(4, 3)) for _ in range(3)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    rules: dict[str, Any] = {"lr": 0.1, "weight_decay": weight_decay}
    ours: Any
    reference: Any
    if name == "SGD":
        ours = SGD(mine, momentum=momentum, **rules)
        reference = torch.optim.SGD(theirs, momentum=momentum, **rules)
    else:
        ours = AdamW(mine, beta=momentum, **rules)
        reference = torch.optim.AdamW(theirs, betas=(momentum, 0.999), **rules)
    for step in range(6):
        ours.zero_grad()
        reference.zero_grad()
        for index, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            # The second one has no gradient in every other step.
            if index == 1 and step % 2:
                continue
            gradient = torch.randn(4, 3)
            a.grad, b.grad = gradient, gradient.clone()
        ours.step()
        reference.step()
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a, b)


def test_training_on_a_device_imports_nothing_large_that_it_does_not_use() -> None:
    program = """
import sys, torch
from client_app.training import Objective, train
from common.settings.training_settings import TrainingSettings
from common.moe import ModelSpec
from common.seeding import stream
spec = ModelSpec(backbone="resnet8", input_shape=(3, 8, 8), num_classes=2,
                 num_experts=2, expert_hidden=4, top_k=1)
for settings in (TrainingSettings(), TrainingSettings(
        optimizer="adamw", clip_grad=1.0, label_smoothing=0.1, precision="float16")):
    train(spec.build([0]), torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]),
          settings=settings, objective=Objective(proximal=0.1), rng=stream(0, "x"))
import client_app.app
assert "torch._dynamo" not in sys.modules
assert not {"torchvision", "scipy", "sklearn"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=200)


def adam(parameters: Any, settings: TrainingSettings) -> Any:
    return torch.optim.Adam(parameters, lr=settings.lr)


def amsgrad(parameters: Any, settings: TrainingSettings) -> Any:
    return torch.optim.Adam(parameters, lr=settings.lr, amsgrad=True)


def no_optimizer(parameters: Any, settings: TrainingSettings) -> Any:
    return parameters


MINE = "tests.common.test_optimizers"


def test_training_steps_with_the_optimizer_of_the_settings() -> None:
    # One sample, one batch, one epoch: Adam's first step is lr in every coordinate
    # that has a gradient, whatever its size.
    spec = ModelSpec(
        backbone="mlp",
        input_shape=(3,),
        num_classes=2,
        num_experts=1,
        expert_hidden=4,
        top_k=1,
    )
    model = spec.build([0])
    before = model.vectors(["expert.0"])["expert.0"]
    train(
        model,
        torch.ones(1, 3),
        torch.tensor([1]),
        settings=TrainingSettings(
            optimizer=f"{MINE}:adam", lr=0.25, local_epochs=1, batch_size=1
        ),
        objective=Objective(),
        rng=stream(0, "x"),
    )
    change = np.abs(model.vectors(["expert.0"])["expert.0"] - before)
    assert change.max() == pytest.approx(0.25, rel=1e-4)
    assert np.all((change < 1e-6) | (abs(change - 0.25) < 1e-3))


def test_what_makes_no_optimizer_is_told_by_its_name() -> None:
    settings = TrainingSettings(optimizer=f"{MINE}:no_optimizer")
    with pytest.raises(SettingsError, match=r"no_optimizer' returned a list: .*step"):
        find_optimizer([], settings)
