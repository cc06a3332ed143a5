"""The mixture-of-experts model both sides build: backbones, experts, gates, sizes."""

from common.moe.encoder import EncoderSpec
from common.moe.experts import Expert, MLPExpert
from common.moe.layer import MoELayer
from common.moe.model import MoEModel
from common.moe.routing import Exploration, Routed, Routing, mean_entropy
from common.moe.spec import ModelSpec
from common.moe.vectors import pack, unpack_into
from common.parts import (
    COMMON,
    EXTRACTOR,
    GATE,
    Layout,
    Vector,
    expert_id,
    expert_part,
    unflatten,
)

__all__ = [
    "COMMON",
    "EXTRACTOR",
    "GATE",
    "EncoderSpec",
    "Expert",
    "Exploration",
    "Layout",
    "MLPExpert",
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
