"""The model on one device: backbone, and mixture layers of the held experts only.

Experts have one number across all layers, layer by layer: expert e of layer l, both
from 0, is ``l * num_experts + e``. With one layer that is e.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from common.moe import mixing
from common.moe.apart import Rest, cut_out
from common.moe.backbones import NORMS, SERIES_NORMS
from common.moe.experts import Expert, acts_on
from common.moe.image_network import NetworkExtractor
from common.moe.layer import MoELayer
from common.moe.lora import PerLinear
from common.moe.routing import Routed, Routing
from common.moe.vectors import pack, unpack_into
from common.parts import COMMON, EXTRACTOR, GATE, Mixes, Vector, expert_part
from common.registry import BACKBONES, EXPERTS

if TYPE_CHECKING:
    from common.moe.spec import ModelSpec


class MoEModel(nn.Module):
    """Backbone and mixture layers with only the held experts allocated.

    Parameters
    ----------
    spec : ModelSpec
    held : tuple of int
        Sorted global ids of the experts on this device.

    Raises
    ------
    ValueError
        If a layer has no expert here, or an expert does not exist.

    Attributes
    ----------
    layers : sequence of MoELayer
        From the input on.
    """

    layers: Sequence[MoELayer]

    def __init__(self, spec: "ModelSpec", held: tuple[int, ...]) -> None:
        super().__init__()
        self.spec = spec
        self.held = held
        self.extractor = backbone_of(spec)
        self.common: nn.Module | None = None
        if spec.common_gate:
            self.common = backbone_of(spec).requires_grad_(False)
        self._on_maps = acts_on(EXPERTS.find(spec.expert)) == "maps"
        features = int(self.extractor.out_features)  # type: ignore[arg-type]
        expert = expert_of(spec)
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            MoELayer(
                in_features=features,
                hidden=spec.expert_hidden_scaled,
                out_features=features if spec.encoder else spec.num_classes,
                expert=expert,
                num_experts=spec.num_experts,
                held=inside,
                top_k=spec.top_k,
                scale=1 / spec.width,
                mixes=_mixes(spec),
            )
            for inside in _by_layer(spec, held)
        )

    @property
    def moe(self) -> MoELayer:
        """The mixture layer of a model that has one."""
        [layer] = self.layers
        return layer

    @property
    def last_held(self) -> torch.Tensor:
        """Global ids of the experts held of the last layer, shape (H,)."""
        first = (len(self.layers) - 1) * self.spec.num_experts
        return first + self.layers[-1].held_ids

    def forward(self, x: torch.Tensor) -> Routed:
        """Map inputs (B, *input_shape) to the routed result."""
        if (encoder := self.spec.encoder) is None:
            drawn = self.moe.draw(x.shape[0])
            logits, routing = self.moe(self.seen(x), self.gate_input(x), drawn)
            return Routed(logits=logits, layers=(routing,))
        record: list[Routing] = []
        seen = self.gate_input(x)
        mixes = [
            mixing.routed(layer, encoder.routing, seen, record) for layer in self.layers
        ]
        return Routed(logits=self.extractor(x, mixes), layers=tuple(record))

    def gate_input(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return what the gates see of each sample, None if it is what experts see."""
        return None if self.common is None else features_of(self.common, x)

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """Return what experts that classify see of inputs: features (B, D) or maps."""
        seen: torch.Tensor = (
            self.extractor.maps(x)  # type: ignore[operator]
            if self._on_maps
            else self.extractor(x)
        )
        return seen

    def expert_examples(self, samples: int = 1) -> list[torch.Tensor]:
        """Return zeros as an expert sees them, for each module it consists of."""
        encoder, rows = self.spec.encoder, samples * self.spec.positions
        if encoder is None and self._on_maps:
            with torch.no_grad():
                return [torch.zeros_like(self.seen(self.spec.example(samples)))]
        features = int(self.extractor.out_features)  # type: ignore[arg-type]
        if encoder is None or not encoder.linears:
            return [torch.zeros(rows, features)]
        return [torch.zeros(rows, inputs) for _, inputs, _ in encoder.linears]

    def parts(self) -> dict[str, nn.Module]:
        """Return the module of every part this device holds."""
        gates = [layer.gate for layer in self.layers]
        parts: dict[str, nn.Module] = {
            EXTRACTOR: self.extractor,
            GATE: gates[0] if len(gates) == 1 else nn.ModuleList(gates),
        }
        if self.spec.apart:
            cut = {name: cut_out(self.extractor, name) for name in self.spec.apart}
            parts |= {**cut, EXTRACTOR: Rest(self.extractor, [*cut.values()])}
        if self.common is not None:
            parts[COMMON] = self.common
        experts = [f for layer in self.layers for f in layer.experts.values()]
        for number, expert in zip(self.held, experts, strict=True):
            parts[expert_part(number)] = expert
        return parts

    def load(self, vectors: Mapping[str, Vector]) -> None:
        """Copy part vectors into the modules.

        Raises
        ------
        ValueError
            If a part is not held here or its vector has the wrong length.
        """
        parts = self.parts()
        for name, vector in vectors.items():
            if name not in parts:
                raise ValueError(f"part {name!r} is not held: {sorted(parts)}")
            unpack_into(parts[name], vector, name)

    def vectors(self, names: Iterable[str]) -> dict[str, Vector]:
        """Return copies of the named parts as flat vectors."""
        parts = self.parts()
        return {name: pack(parts[name]) for name in names}


def features_of(extractor: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return an extractor's features of every sample, (B, D), without any expert."""
    whole = getattr(extractor, "features", extractor)
    features: torch.Tensor = whole(x)
    return features


def expert_of(spec: "ModelSpec") -> Expert:
    """Return the kind of expert of a model of this shape."""
    kind: Expert = EXPERTS.find(spec.expert)
    if spec.encoder is None or not spec.encoder.linears:
        return kind
    sizes = [(inputs, outputs) for _, inputs, outputs in spec.encoder.linears]
    return PerLinear(kind, sizes, spec.encoder.alpha)


def backbone_of(spec: "ModelSpec") -> nn.Module:
    """Return a new backbone: the extractor of a model of this shape."""
    if spec.network is not None:
        return NetworkExtractor(spec.network)
    build = BACKBONES.find(spec.backbone)
    if spec.encoder is not None:
        [length] = spec.input_shape
        return build(spec.encoder, length, spec.num_classes)
    norms = SERIES_NORMS if getattr(build, "takes_series", False) else NORMS
    return build(spec.input_shape, spec.width, norms[spec.norm])


def _mixes(spec: "ModelSpec") -> Mixes:
    """Return how a layer mixes: inside an encoder there are no probabilities."""
    features = spec.encoder is not None and spec.mixes == "probabilities"
    return "logits" if features else spec.mixes


def _by_layer(spec: "ModelSpec", held: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the experts of each layer by their numbers within it."""
    inside: list[list[int]] = [[] for _ in range(spec.num_layers)]
    for expert in held:
        if not 0 <= expert < spec.num_units:
            raise ValueError(
                f"expert {expert} does not exist: 0 to {spec.num_units - 1}"
            )
        inside[expert // spec.num_experts].append(expert % spec.num_experts)
    for number, experts in enumerate(inside, 1):
        if not experts:
            raise ValueError(f"layer {number} has no expert among {list(held)}")
    return [tuple(experts) for experts in inside]
