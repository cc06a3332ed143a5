"""Parts from outside that are wrong: one line that names them, before any round."""

from typing import Any

import pytest
import torch
from torch import nn

from common.errors import SettingsError
from common.moe import ModelSpec
from common.settings.training_settings import TrainingSettings
from common.trial import check_samples, try_parts

MINE = "tests.common.test_trial"


def not_a_module(*_: Any) -> int:
    return 3


def never(*_: Any) -> Any:
    raise OSError("no such day")


class OneArgument(nn.Module):
    def __init__(self, only: int) -> None:
        super().__init__()


class SaysSeven(nn.Module):
    out_features = 7

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


class OneTooMany(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.out = nn.Linear(inputs, outputs + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x)


class Plain(OneTooMany):
    def __init__(self, inputs: int, hidden: int, outputs: int, scale: float) -> None:
        super().__init__(inputs, hidden, outputs - 1, scale)


def adam(parameters: Any, settings: TrainingSettings) -> Any:
    return torch.optim.Adam(parameters, lr=settings.lr)


def tried(
    backbone: str = "mlp",
    expert: str = "mlp",
    optimizer: str = "sgd",
    shape: tuple[int, ...] = (1, 4, 4),
) -> None:
    spec = ModelSpec(
        backbone=backbone,
        expert=expert,
        input_shape=shape,
        num_classes=5,
        num_experts=2,
        expert_hidden=8,
        top_k=1,
    )
    try_parts(spec, TrainingSettings(optimizer=optimizer))


@pytest.mark.parametrize(
    ("setting", "part", "said"),
    [
        ("backbone", "not_a_module", "cannot be used: TypeError: 'int' object"),
        ("backbone", "OneArgument", "cannot be used: TypeError: .*4 were given"),
        ("backbone", "never", "cannot be used: OSError: no such day"),
        (
            "backbone",
            "SaysSeven",
            r"maps \(2, 1, 4, 4\) to \(2, 16\): .*out_features is 7",
        ),
        ("expert", "not_a_module", "cannot be used: TypeError: 'int' object"),
        ("expert", "OneArgument", "cannot be used: TypeError: .*5 were given"),
        ("expert", "OneTooMany", r"maps \(4, 3\) to \(4, 6\): expected \(4, 5\)"),
        ("optimizer", "never", "cannot be used: OSError: no such day"),
        ("optimizer", "not_a_module", "returned a int: expected zero_grad"),
    ],
)
def test_what_is_wrong_with_a_part(setting: str, part: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^{setting} = '{MINE}:{part}' {said}"):
        parts: dict[str, Any] = {setting: f"{MINE}:{part}"}
        tried(**parts)


def test_what_is_right_passes() -> None:
    tried()
    tried(expert=f"{MINE}:Plain", optimizer=f"{MINE}:adam")


def checked(backbone: str, shape: tuple[int, ...]) -> None:
    spec = ModelSpec(
        backbone=backbone,
        input_shape=shape,
        num_classes=5,
        num_experts=2,
        expert_hidden=8,
        top_k=1,
    )
    check_samples(spec)


@pytest.mark.parametrize(
    ("backbone", "shape", "said"),
    [
        (
            "cnn",
            (3, 7, 7),
            "(3, 7, 7), an image: the image is too small for its "
            "layers; choose mlp, resnet8 or resnet18",
        ),
        (
            "cnn",
            (1, 128, 3),
            "(1, 128, 3), an image: the image is too small for its "
            "layers; choose mlp, resnet8 or resnet18, or cnn1d for windows of a series",
        ),
        (
            "cnn",
            (6, 128),
            "(6, 128), a series: it is for images, of shape (channels, "
            "height, width); choose mlp or cnn1d",
        ),
        (
            "resnet8",
            (2, 128),
            "(2, 128), a series: it is for images, of shape "
            "(channels, height, width); choose mlp or cnn1d",
        ),
        (
            "resnet18",
            (9,),
            "(9,), a table: it is for images, of shape (channels, "
            "height, width); choose mlp",
        ),
        (
            "cnn1d",
            (3, 32, 32),
            "(3, 32, 32), an image: it is for series, of shape "
            "(channels, steps); choose mlp, cnn, resnet8 or resnet18",
        ),
        (
            "cnn1d",
            (9,),
            "(9,), a table: it is for series, of shape (channels, steps); choose mlp",
        ),
    ],
)
def test_samples_that_a_backbone_cannot_take(
    backbone: str, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        checked(backbone, shape)
    assert str(error.value) == (
        f"backbone = {backbone!r} is not allowed with samples of shape {said}"
    )


@pytest.mark.parametrize(
    ("backbone", "shape"),
    [
        *(("mlp", shape) for shape in ((1,), (9,), (6, 128), (3, 1, 1))),
        *(("cnn1d", shape) for shape in ((1, 2), (3, 128), (200, 5))),
        *(("cnn", (1, 8, 8)), ("resnet8", (1, 1, 1)), ("resnet18", (4, 5, 99))),
    ],
)
def test_samples_that_it_can_take(backbone: str, shape: tuple[int, ...]) -> None:
    checked(backbone, shape)


class Bare(Plain):
    """Wrong in one thing, each subclass in another; right but for that."""


class Elsewhere(Bare):
    acts_on = "somewhere"


class Uncounted(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class Counted(Uncounted):
    def flops(self, x: torch.Tensor) -> int:
        return 2 * len(x) * self.weight.numel()


class WrongTogether(Bare):
    @staticmethod
    def run_together(
        x: torch.Tensor, experts: list[Bare], slots: torch.Tensor
    ) -> torch.Tensor:
        return experts[0](x)[:, None]


class Loud(Bare):
    def start_silent(self) -> None:
        nn.init.zeros_(self.out.weight)


class Frozen(Bare):
    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.requires_grad_(False)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            "Elsewhere",
            "cannot be used: ValueError: acts_on = 'somewhere' is not "
            "allowed: one of features, blocks, linears, maps",
        ),
        ("Uncounted", "cannot be used: it has no linear .*: expected a method flops"),
        ("WrongTogether", "is not allowed: its run_together answers otherwise"),
        ("Loud", "is not allowed: it still answers something after start_silent"),
        ("Frozen", "cannot be used: it has no parameters to train"),
    ],
)
def test_an_expert_that_does_not_keep_to_the_protocol(part: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^expert = '{MINE}:{part}' {said}"):
        tried(expert=f"{MINE}:{part}")


def test_an_expert_may_count_for_itself() -> None:
    tried(expert=f"{MINE}:Counted")


@pytest.mark.parametrize(
    ("backbone", "shape", "said"),
    [
        ("mlp", (1, 16, 16), "backbone = 'mlp', which has no maps: choose cnn"),
        ("cnn", (1, 8, 8), "samples of shape (1, 8, 8): maps of 1 x 1 have no places"),
    ],
)
def test_convolutions_need_maps(
    backbone: str, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        tried(backbone, "conv", shape=shape)
    assert said in str(error.value)


def test_convolutions_of_a_backbone_with_maps() -> None:
    for backbone in ("cnn", "resnet8"):
        tried(backbone, "conv", shape=(1, 16, 16))
