"""Text models that several tests build, and what an exported graph would answer."""

from typing import Any
from unittest import mock

import torch

from common.moe import EncoderSpec, ModelSpec
from common.moe.ensemble import Answer, Explaining

LENGTH = 9
IMAGE_BACKBONES = ("mlp", "cnn", "resnet8", "resnet18")
BACKBONE_SHAPES = {
    **dict.fromkeys(IMAGE_BACKBONES, (3, 16, 16)),
    "cnn1d": (3, 50),
}


def text_spec(**changes: Any) -> ModelSpec:
    """Two mixture layers of four experts, at the first and the last of three blocks."""
    encoder = {
        "vocabulary": 40,
        "layers": 3,
        "width": 8,
        "heads": 2,
        "moe_layers": (1, 3),
        "routing": "token",
    }
    inner = {k: changes.pop(k) for k in list(changes) if k in encoder}
    fields = {
        "backbone": "text-transformer",
        "input_shape": (LENGTH,),
        "num_classes": 3,
        "num_experts": 4,
        "expert_hidden": 6,
        "top_k": 1,
    }
    return ModelSpec(
        **{**fields, **changes}, encoder=EncoderSpec(**{**encoder, **inner})
    )


def texts(count: int = 6, seed: int = 0) -> torch.Tensor:
    """Return token ids (count, LENGTH); text i has 1 + i % LENGTH real tokens."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 40, (count, LENGTH), generator=generator)
    for row in range(count):
        x[row, 1 + row % LENGTH :] = 0
    return x


def exported_answer(mixture: Explaining, x: torch.Tensor) -> Answer:
    """Return what a mixture answers while it is exported."""
    with mock.patch("torch.compiler.is_exporting", return_value=True):
        return mixture.answer(x)
