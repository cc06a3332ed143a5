"""Fed-MoE's server model: main expert, routed experts, gate and alpha; METHODS 3.

Every expert is a whole compact model (extractor and one expert of ours), and so is the
gate but for its last layer, which has one output per routed expert.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from common.moe import (
    EXTRACTOR,
    GATE,
    Layout,
    ModelSpec,
    MoEModel,
    Vector,
    expert_part,
    pack,
    unpack_into,
)
from common.moe.ensemble import Answer
from common.moe.model import features_of
from common.moe.parts import layout_of
from common.moe.static import StaticMixture
from common.seeding import derive


def compact_names(spec: ModelSpec) -> list[str]:
    """Return the parts of a compact model, in the order its vector joins them."""
    return [EXTRACTOR, *map(expert_part, spec.one_of_each)]


class ServerGate(nn.Module):
    """G: inputs to logits over the K routed experts.

    A compact backbone of its own with a linear layer: the paper feeds the gate with
    the input itself and leaves the network open.

    Parameters
    ----------
    spec : ModelSpec
        Shape of the compact model.
    experts : int
        Routed experts K.
    seed : int
        Of the run; the gate draws from a stream of its own.
    """

    def __init__(self, spec: ModelSpec, experts: int, seed: int) -> None:
        super().__init__()
        self.spec = replace(spec, num_experts=experts)
        one = self.spec.one_of_each
        model = self.spec.build(one, derive(seed, "server-gate"))
        # Of several layers the first one's gate is as good as any.
        self.extractor, self.linear = model.extractor, model.layers[0].gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, *input_shape) to logits (B, K); their softmax is Q (Eq. 3)."""
        return self.linear(features_of(self.extractor, x))

    def vector(self) -> Vector:
        """Return both parts as one flat vector."""
        return join([pack(self.extractor), pack(self.linear)])

    def load(self, vector: Vector) -> None:
        """Copy such a vector back."""
        extractor, linear = np.split(vector, [self.spec.size(EXTRACTOR)])
        unpack_into(self.extractor, extractor, GATE)
        unpack_into(self.linear, linear, GATE)

    def layout(self) -> Layout:
        """Return name and shape of the tensors in :meth:`vector`."""
        return _joined(
            {
                "extractor": self.spec.layout(EXTRACTOR),
                "linear": layout_of(self.linear),
            }
        )


class ServerMoE(nn.Module):
    """The predictor: main expert and the top-L routed ones (Eq. 10).

    Only the experts a sample is routed to are run on it.

    Parameters
    ----------
    main : MoEModel
    routed : iterable of MoEModel
        K dense models.
    gate : ServerGate
    alpha : float
    top_l : int
        L.
    """

    def __init__(
        self,
        main: MoEModel,
        routed: Iterable[MoEModel],
        gate: nn.Module,
        alpha: float,
        top_l: int,
    ) -> None:
        super().__init__()
        self.main, self.routed, self.gate = main, nn.ModuleList(routed), gate
        self.alpha, self.top_l = alpha, top_l

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (B, *input_shape) to class probabilities (B, C)."""
        values, chosen = self.gate(x).softmax(1).topk(self.top_l, dim=1)
        # Eq. 10 takes the softmax of the activations Q, which are softmaxed already.
        weights = self.alpha * values.softmax(1)
        answer = (1 - self.alpha) * self.main(x).logits.softmax(1)
        for k, expert in enumerate(self.routed):
            rows, slots = (chosen == k).nonzero(as_tuple=True)
            if len(rows):
                share = weights[rows, slots, None] * expert(x[rows]).logits.softmax(1)
                answer = answer.index_add(0, rows, share)
        return answer

    def answer(self, x: torch.Tensor) -> Answer:
        """Name the expert with the largest weight; 0 is main, k + 1 is routed k."""
        return Answer(self(x), self._experts(self.gate(x).softmax(1)))

    def static(self) -> nn.Module:
        """Return the same with every expert run on every sample, others masked."""
        return _StaticMoE(self)

    def _experts(self, gates: torch.Tensor) -> torch.Tensor:
        top = gates.topk(self.top_l, dim=1)
        routed = self.alpha * top.values.softmax(1)
        heaviest, slot = routed.max(1)
        chosen = 1 + top.indices.gather(1, slot[:, None])[:, 0]
        return torch.where(heaviest > 1 - self.alpha, chosen, 0)


class _StaticMoE(nn.Module):
    """A :class:`ServerMoE` whose shapes do not depend on the data, for export."""

    def __init__(self, moe: ServerMoE) -> None:
        super().__init__()
        self.moe = moe

    def forward(self, x: torch.Tensor) -> Answer:
        """Map inputs (B, *input_shape) to probabilities and experts."""
        moe = self.moe
        gates = moe.gate(x).softmax(1)
        top = gates.topk(moe.top_l, dim=1)
        weights = torch.zeros_like(gates).scatter(1, top.indices, top.values.softmax(1))
        routed = torch.stack([_probabilities(expert, x) for expert in moe.routed], 1)
        mixed = (weights[:, :, None] * routed).sum(1)
        answer = (1 - moe.alpha) * _probabilities(moe.main, x) + moe.alpha * mixed
        return Answer(answer, moe._experts(gates))


def _probabilities(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what a compact model says: its one expert, weighted by a gate of one."""
    assert isinstance(model, MoEModel)
    probabilities, _ = StaticMixture(model)(x)
    return probabilities


def join(vectors: Iterable[Vector]) -> Vector:
    """Return the vectors of several parts as one."""
    return np.concatenate(list(vectors))


def compact_parts(spec: ModelSpec, vector: Vector) -> dict[str, Vector]:
    """Cut a compact model's vector into the parts that travel (views)."""
    names = compact_names(spec)
    ends = np.cumsum([spec.size(name) for name in names])
    return dict(zip(names, np.split(vector, ends[:-1]), strict=True))


def compact_model(spec: ModelSpec, vector: Vector) -> MoEModel:
    """Build the compact model a vector describes."""
    model = spec.build(spec.one_of_each)
    model.load(compact_parts(spec, vector))
    return model


def compact_layout(spec: ModelSpec) -> Layout:
    """Return name and shape of the tensors in a compact model's vector."""
    names = compact_names(spec)
    if len(names) == 2:
        named = {"extractor": spec.layout(EXTRACTOR), "expert": spec.layout(names[1])}
        return _joined(named)
    return _joined({name: spec.layout(name) for name in names})


def _joined(layouts: dict[str, Layout]) -> Layout:
    return tuple(
        (f"{part}.{name}", shape)
        for part, layout in layouts.items()
        for name, shape in layout
    )
