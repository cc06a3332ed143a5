"""The mixture-of-experts model both sides build: backbones, experts, gate, sizes."""

from common.moe.layer import Expert, MoELayer, Routed
from common.moe.model import (
    COMMON,
    EXTRACTOR,
    GATE,
    Layout,
    ModelSpec,
    MoEModel,
    Vector,
    expert_id,
    expert_part,
    pack,
    unflatten,
    unpack_into,
)

__all__ = [
    "COMMON",
    "EXTRACTOR",
    "GATE",
    "Expert",
    "Layout",
    "MoELayer",
    "MoEModel",
    "ModelSpec",
    "Routed",
    "Vector",
    "expert_id",
    "expert_part",
    "pack",
    "unflatten",
    "unpack_into",
]
