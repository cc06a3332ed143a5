"""The mixture-of-experts model both sides build: backbones, experts, gates, sizes."""

from common.moe.encoder import EncoderSpec
from common.moe.layer import Expert, MoELayer, Routed, Routing, mean_entropy
from common.moe.model import MoEModel
from common.moe.parts import (
    COMMON,
    EXTRACTOR,
    GATE,
    Layout,
    Vector,
    expert_id,
    expert_part,
    pack,
    unflatten,
    unpack_into,
)
from common.moe.spec import ModelSpec

__all__ = [
    "COMMON",
    "EXTRACTOR",
    "GATE",
    "EncoderSpec",
    "Expert",
    "Layout",
    "MoELayer",
    "MoEModel",
    "ModelSpec",
    "Routed",
    "Routing",
    "Vector",
    "expert_id",
    "expert_part",
    "mean_entropy",
    "pack",
    "unflatten",
    "unpack_into",
]
