"""The whole model: backbone plus mixture layer, cut into the parts that travel.

A *part* is the unit that is shipped, merged and versioned: ``extractor``,
``expert.<id>``, ``gate`` and, where a strategy feeds the gate from a frozen network of
its own, ``common``. A part is one flat float32 vector in a fixed order (parameters,
then floating-point buffers), so that the server adds vectors and knows no torch
modules, and one expert is one array on the wire. :class:`ModelSpec` says how to build
the modules and how a vector unfolds into named tensors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.moe.backbones import BACKBONES, NORMS
from common.moe.layer import Mixes, MoELayer, Routed
from common.seeding import derive

Vector = NDArray[np.float32]
Layout = tuple[tuple[str, tuple[int, ...]], ...]

EXTRACTOR, GATE, COMMON = "extractor", "gate", "common"


def expert_part(expert: int) -> str:
    """Return the part name of the expert with this global id."""
    return f"expert.{expert}"


def expert_id(part: str) -> int | None:
    """Return the global id a part name carries, None if it is no expert."""
    prefix, _, number = part.partition(".")
    return int(number) if prefix == "expert" and number.isdecimal() else None


class MoEModel(nn.Module):
    """Backbone and mixture layer with only the held experts allocated."""

    def __init__(self, spec: "ModelSpec", held: tuple[int, ...]) -> None:
        super().__init__()
        self.spec = spec
        build = BACKBONES[spec.backbone]
        norm = NORMS[spec.norm]
        self.extractor = build(spec.input_shape, spec.width, norm)
        self.common: nn.Module | None = None
        if spec.common_gate:
            self.common = build(spec.input_shape, spec.width, norm).requires_grad_(
                False
            )
        self.moe = MoELayer(
            in_features=int(self.extractor.out_features),  # type: ignore[arg-type]
            hidden=spec.expert_hidden_scaled,
            num_classes=spec.num_classes,
            num_experts=spec.num_experts,
            held=held,
            top_k=spec.top_k,
            scale=1 / spec.width,
            mixes=spec.mixes,
        )

    def forward(self, x: torch.Tensor) -> Routed:
        """Map inputs (B, *input_shape) to the routed result."""
        features = self.extractor(x)
        if self.common is None:
            routed: Routed = self.moe(features)
            return routed
        with torch.no_grad():
            gate_input = self.common(x)
        routed = self.moe(features, gate_input)
        return routed

    def parts(self) -> dict[str, nn.Module]:
        """Return the module of every part this device holds."""
        parts: dict[str, nn.Module] = {EXTRACTOR: self.extractor, GATE: self.moe.gate}
        if self.common is not None:
            parts[COMMON] = self.common
        for key, expert in self.moe.experts.items():
            parts[expert_part(int(key))] = expert
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


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    # num_batches_tracked is an integer buffer that only momentum=None would read.
    return [
        (name, value.detach())
        for name, value in [*module.named_parameters(), *module.named_buffers()]
        if value.is_floating_point()
    ]


def pack(module: nn.Module) -> Vector:
    """Return the parameters and float buffers of a module as one flat vector."""
    flat = [value.cpu().reshape(-1) for _, value in _tensors(module)]
    return torch.cat(flat).numpy()


def unpack_into(module: nn.Module, vector: Vector, name: str = "part") -> None:
    """Copy a flat vector back into a module.

    Raises
    ------
    ValueError
        If the length does not match.
    """
    tensors = _tensors(module)
    size = sum(value.numel() for _, value in tensors)
    if vector.shape != (size,):
        raise ValueError(f"{name} has shape {vector.shape}, expected ({size},)")
    # A copy: what came in a message is read-only, and torch would warn.
    source = torch.from_numpy(np.array(vector, dtype=np.float32))
    start = 0
    for _, value in tensors:
        stop = start + value.numel()
        value.copy_(source[start:stop].view_as(value))
        start = stop


def unflatten(vector: Vector, layout: Layout) -> dict[str, Vector]:
    """Cut a part's vector into its named tensors (views, no copy)."""
    sizes = [int(np.prod(shape)) for _, shape in layout]
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {
        name: piece.reshape(shape)
        for (name, shape), piece in zip(layout, pieces, strict=True)
    }


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything needed to build the model, equal on both sides.

    Attributes
    ----------
    width : float
        Share of every hidden channel count, 1 for the full model (FedRolex).
    common_gate : bool
        Whether the gate looks at a frozen network of its own (FedJETs).
    mixes : {"logits", "probabilities"}
        What the gate's weights are applied to, see :class:`MoELayer`.
    """

    backbone: str
    input_shape: tuple[int, ...]
    num_classes: int
    num_experts: int
    expert_hidden: int
    top_k: int
    norm: str = "group"
    width: float = 1.0
    common_gate: bool = False
    mixes: Mixes = "logits"

    @property
    def expert_hidden_scaled(self) -> int:
        """Hidden units of one expert at this width."""
        return int(np.ceil(self.expert_hidden * self.width))

    def dense(self) -> "ModelSpec":
        """Return the dense model of the same shape: the extractor and one expert."""
        return replace(self, num_experts=1, top_k=1)

    def build(self, held: Iterable[int], seed: int = 0) -> MoEModel:
        """Build the model with the held experts, initialised from ``seed``.

        Every part has a random stream of its own, so an expert starts from the same
        values whichever device holds it and whatever else it holds.
        """
        with torch.random.fork_rng(devices=[]):
            model = MoEModel(self, tuple(sorted(held)))
            for name, module in model.parts().items():
                # Not torch.manual_seed: where there is no GPU it formats and keeps
                # stack traces at every call.
                torch.default_generator.manual_seed(derive(seed, "init", name))
                _initialise(module)
        return model

    def part_names(self) -> list[str]:
        """Return all parts of the whole mixture, gate last."""
        names = [EXTRACTOR, *map(expert_part, range(self.num_experts))]
        return [*names, COMMON, GATE] if self.common_gate else [*names, GATE]

    def initial(self, seed: int, names: Iterable[str]) -> dict[str, Vector]:
        """Return the initial vectors of the named parts."""
        return self.build(range(self.num_experts), seed).vectors(names)

    def layout(self, part: str) -> Layout:
        """Return (name, shape) of the tensors in a part's vector, in order."""
        return _layouts(self)["expert.0" if expert_id(part) is not None else part]

    def size(self, part: str) -> int:
        """Return the number of float32 values in a part."""
        return sum(int(np.prod(shape)) for _, shape in self.layout(part))

    def nbytes(self, part: str) -> int:
        """Return the bytes of a part as shipped in float32."""
        return 4 * self.size(part)

    def flops(self, part: str) -> int:
        """Return the floating-point operations of one forward pass of one sample.

        Counts two operations per multiply-add of linear and convolution layers.
        """
        return _flops(self)["expert.0" if expert_id(part) is not None else part]


@lru_cache(maxsize=64)
def _layouts(spec: ModelSpec) -> dict[str, Layout]:
    with torch.device("meta"):
        model = MoEModel(spec, (0,))
    return {
        name: tuple((key, tuple(value.shape)) for key, value in _tensors(module))
        for name, module in model.parts().items()
    }


@lru_cache(maxsize=64)
@torch.no_grad()
def _flops(spec: ModelSpec) -> dict[str, int]:
    model = spec.build([0]).eval()
    x = torch.zeros(1, *spec.input_shape)
    features = model.extractor(x)
    return {
        name: _module_flops(module, x if name in (EXTRACTOR, COMMON) else features)
        for name, module in model.parts().items()
    }


def _module_flops(module: nn.Module, x: torch.Tensor) -> int:
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = layer.get_parameter("weight")
        total += 2 * weight.numel() * (output[0].numel() // len(weight))

    layers = [f for f in module.modules() if isinstance(f, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    module(x)
    for hook in hooks:
        hook.remove()
    return total


def _initialise(module: nn.Module) -> None:
    """Draw a module's parameters again, by torch's own formulas."""
    for layer in module.modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
