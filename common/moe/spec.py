"""What the whole mixture looks like: how to build it, and how large its parts are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from common.moe.bases import base_values
from common.moe.encoder import EncoderSpec
from common.moe.experts import modules_of, silence
from common.moe.flops import counted, flops_of
from common.moe.image_network import NetworkSpec, measured
from common.moe.model import MoEModel
from common.moe.pretrained import base_flops
from common.moe.vectors import initialise, layout_of
from common.parts import (
    COMMON,
    EXTRACTOR,
    GATE,
    HEAD,
    Layout,
    Mixes,
    Vector,
    expert_id,
    expert_part,
    model_of_part,
)
from common.seeding import derive


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything needed to build the model, equal on both sides.

    What is assigned, shipped and merged is an expert of one layer. All of them are
    numbered in a row, layer by layer, and everything that has one entry per expert has
    ``num_units`` of them; with one layer, ``num_experts``.

    Attributes
    ----------
    num_experts : int
        Experts E of each layer.
    expert_hidden : int
        Hidden units of one.
    expert : str
        What kind (:data:`common.registry.EXPERTS`).
    width : float
        Share of every hidden channel count, 1 for the full model (FedRolex).
    common_gate : bool
        Whether the gate looks at a frozen network of its own (FedJETs).
    mixes : {"logits", "probabilities", "sum"}
        What the gate's weights are applied to, see :class:`MoELayer`. Layers inside an
        encoder mix features.
    encoder : EncoderSpec or None
        Shape of an encoder with mixture layers inside; None for a backbone whose
        experts classify its features.
    network : NetworkSpec or None
        Of images, that others made; None for a backbone of another kind.
    apart : tuple of str
        What is cut out of the extractor as a part of its own (:mod:`common.moe.apart`).
    """

    backbone: str
    input_shape: tuple[int, ...]
    num_classes: int
    num_experts: int
    expert_hidden: int
    top_k: int
    expert: str = "mlp"
    norm: str = "group"
    width: float = 1.0
    common_gate: bool = False
    mixes: Mixes = "logits"
    encoder: EncoderSpec | None = None
    network: NetworkSpec | None = None
    apart: tuple[str, ...] = ()

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Return the spec that ``dataclasses.asdict`` gave, after a way through JSON.

        Raises
        ------
        TypeError, KeyError
            If a field is missing or unknown.
        """
        fields = {
            **facts,
            "input_shape": tuple(facts["input_shape"]),
            "apart": tuple(facts.get("apart", ())),
        }
        if (encoder := fields.get("encoder")) is not None:
            tuples = {
                "moe_layers": tuple(encoder["moe_layers"]),
                "linears": tuple(map(tuple, encoder.get("linears", ()))),
            }
            fields["encoder"] = EncoderSpec(**{**encoder, **tuples})
        if (network := fields.get("network")) is not None:
            size = tuple(network["size"])
            fields["network"] = NetworkSpec(**{**network, "size": size})
        return cls(**fields)

    @property
    def expert_hidden_scaled(self) -> int:
        """Hidden units of one expert at this width."""
        return int(np.ceil(self.expert_hidden * self.width))

    @property
    def built_around(self) -> EncoderSpec | NetworkSpec | None:
        """What of this has a pretrained base inside, which is none of the parts."""
        inside = self.encoder or self.network
        return inside if inside is not None and inside.config else None

    @property
    def base(self) -> str:
        """Version of that base; empty without one, or where it is not known yet."""
        return "" if (inside := self.built_around) is None else inside.base

    def with_base(self, version: str) -> "ModelSpec":
        """Return the same around this version of its base, if it has one."""
        if (inside := self.built_around) is None:
            return self
        made = replace(inside, base=version)
        if isinstance(made, EncoderSpec):
            return replace(self, encoder=made)
        return replace(self, network=made)

    @property
    def base_nbytes(self) -> int:
        """Bytes of that base, 0 without one."""
        inside = self.built_around
        return 0 if inside is None else 4 * base_values(inside)

    @property
    def num_layers(self) -> int:
        """Mixture layers L."""
        return 1 if self.encoder is None else len(self.encoder.moe_layers)

    @property
    def num_units(self) -> int:
        """Experts of all layers together, L * E."""
        return self.num_layers * self.num_experts

    @property
    def layers(self) -> NDArray[np.int64]:
        """Layer, from 0, of every expert, shape (L * E,)."""
        return np.repeat(np.arange(self.num_layers), self.num_experts)

    @property
    def one_of_each(self) -> tuple[int, ...]:
        """The first expert of every layer: the least a model is made of."""
        return tuple(range(0, self.num_units, self.num_experts))

    @property
    def positions(self) -> int:
        """What a sample is routed as, at most: its tokens, or 1 for the whole of it."""
        return 1 if self.encoder is None else self.input_shape[0]

    def first_of_layer(self, part: str) -> str:
        """Return the part of the first expert in the layer of this one's.

        Of several models alike, all have the parts of the first.
        """
        _, part = model_of_part(part)
        expert = expert_id(part)
        if expert is None:
            return part
        return expert_part(expert // self.num_experts * self.num_experts)

    @property
    def head_part(self) -> str:
        """What a dense model ends with: its expert, or the head of its encoder."""
        return expert_part(0) if self.encoder is None else HEAD

    def with_apart(self, part: str) -> "ModelSpec":
        """Return the same with a part cut out of its extractor."""
        return replace(self, apart=(part,))

    def dense(self) -> "ModelSpec":
        """Return the dense model of the same shape: one expert in every layer."""
        return replace(self, num_experts=1, top_k=1)

    def build(self, held: Iterable[int], seed: int = 0) -> MoEModel:
        """Build the model with the held experts, initialised from ``seed``.

        Every part has a random stream of its own, so an expert starts from the same
        values whichever device holds it and whatever else it holds.
        """
        with torch.random.fork_rng(devices=[]):
            if self.network is not None:  # whose author draws its values as it is made
                torch.default_generator.manual_seed(derive(seed, "init", "network"))
            model = MoEModel(self, tuple(sorted(held)))
            for name, module in model.parts().items():
                if self.network is not None and name in (
                    EXTRACTOR,
                    COMMON,
                    *self.apart,
                ):
                    continue
                # Not torch.manual_seed: where there is no GPU it formats and keeps
                # stack traces at every call.
                torch.default_generator.manual_seed(derive(seed, "init", name))
                initialise(module)
                if self.encoder and self.built_around and expert_id(name) is not None:
                    silence(module)
        return model

    def part_names(self) -> list[str]:
        """Return all parts of the whole mixture, gate last."""
        experts = map(expert_part, range(self.num_units))
        names = [EXTRACTOR, *self.apart, *experts]
        return [*names, COMMON, GATE] if self.common_gate else [*names, GATE]

    def initial(self, seed: int, names: Iterable[str]) -> dict[str, Vector]:
        """Return the initial vectors of the named parts."""
        return self.build(range(self.num_units), seed).vectors(names)

    def example(self, samples: int = 1) -> torch.Tensor:
        """Return inputs (samples, *input_shape) of the right type, without padding.

        Of a network that is frozen as a whole, features: they are computed once.
        """
        if self.network is not None and self.network.all_frozen:
            seen = measured(self.network.name, self.network.size)
            return torch.zeros(samples, seen.out_features)
        kind = torch.float32 if self.encoder is None else torch.int64
        fill = torch.zeros if self.encoder is None else torch.ones
        return fill(samples, *self.input_shape, dtype=kind)

    def layout(self, part: str) -> Layout:
        """Return (name, shape) of the tensors in a part's vector, in order."""
        return _layouts(self)[self.first_of_layer(part)]

    def size(self, part: str) -> int:
        """Return the number of float32 values in a part."""
        return sum(int(np.prod(shape)) for _, shape in self.layout(part))

    def nbytes(self, part: str) -> int:
        """Return the bytes of a part as shipped in float32."""
        return 4 * self.size(part)

    @property
    def set_nbytes(self) -> int:
        """Bytes of one expert of every layer."""
        return sum(self.nbytes(expert_part(expert)) for expert in self.one_of_each)

    def flops(self, part: str) -> int:
        """Return the floating-point operations of one forward pass of one sample.

        Counts two operations per multiply-add of linear and convolution layers; of a
        text, all tokens are real and the products of attention itself are left out.
        """
        first = self.first_of_layer(part)
        # Of an expert without the rest: a device may not have its base yet.
        known = _flops(self) if expert_id(first) is None else _expert_flops(self)
        return known[first]

    @property
    def set_flops(self) -> int:
        """Operations of one expert of every layer."""
        return sum(self.flops(expert_part(expert)) for expert in self.one_of_each)


@lru_cache(maxsize=64)
def _layouts(spec: ModelSpec) -> dict[str, Layout]:
    with torch.device("meta"):
        model = MoEModel(spec, spec.one_of_each)
    return {name: layout_of(module) for name, module in model.parts().items()}


@lru_cache(maxsize=64)
@torch.no_grad()
def _flops(spec: ModelSpec) -> dict[str, int]:
    model = spec.build(spec.one_of_each).eval()
    parts = model.parts()
    # What is cut out of the extractor still counts in it.
    with counted({n: m for n, m in parts.items() if n not in spec.apart}) as counts:
        model(spec.example())
    counts |= dict.fromkeys(spec.apart, 0)
    if (network := spec.network) is not None and not network.all_frozen:
        counts[EXTRACTOR] = measured(network.name, network.size).flops
    if spec.encoder is not None and spec.built_around:
        counts[EXTRACTOR] += base_flops(spec.encoder, spec.positions)
    return counts


@lru_cache(maxsize=64)
@torch.no_grad()
def _expert_flops(spec: ModelSpec) -> dict[str, int]:
    model = spec.build(spec.one_of_each).eval()
    parts, examples = model.parts(), model.expert_examples()
    # The layer runs experts as one product and never calls them as modules.
    return {
        name: sum(map(flops_of, modules_of(parts[name]), examples))
        for name in map(expert_part, spec.one_of_each)
    }
