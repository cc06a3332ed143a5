"""Fed-MoE's server model: main expert, routed experts, gate, alpha; docs/methods.md, 3.

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
    Layout,
    ModelSpec,
    MoEModel,
    Vector,
    expert_part,
)
from common.moe.ensemble import Answer
from common.moe.model import features_of
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
        wide = replace(spec, num_experts=experts)
        model = wide.build(wide.one_of_each, derive(seed, "server-gate"))
        # Of several layers the first one's gate is as good as any.
        self.extractor, self.linear = model.extractor, model.layers[0].gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, *input_shape) to logits (B, K); their softmax is Q (Eq. 3)."""
        return self.linear(features_of(self.extractor, x))


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
        if torch.compiler.is_exporting():  # no shape of a graph depends on the data
            every = torch.stack([e(x).logits.softmax(1) for e in self.routed], dim=1)
            taken = every.gather(1, chosen[:, :, None].expand(-1, -1, every.shape[2]))
            return answer + (weights[:, :, None] * taken).sum(1)
        for k, expert in enumerate(self.routed):
            rows, slots = (chosen == k).nonzero(as_tuple=True)
            if len(rows):
                share = weights[rows, slots, None] * expert(x[rows]).logits.softmax(1)
                answer = answer.index_add(0, rows, share)
        return answer

    def answer(self, x: torch.Tensor) -> Answer:
        """Name the expert with the largest weight; 0 is main, k + 1 is routed k."""
        return Answer(self(x), self._experts(self.gate(x).softmax(1)))

    def _experts(self, gates: torch.Tensor) -> torch.Tensor:
        top = gates.topk(self.top_l, dim=1)
        routed = self.alpha * top.values.softmax(1)
        heaviest, slot = routed.max(1)
        chosen = 1 + top.indices.gather(1, slot[:, None])[:, 0]
        return torch.where(heaviest > 1 - self.alpha, chosen, 0)


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
    called = {names[1]: "expert"} if len(names) == 2 else {}
    return tuple(
        (f"{called.get(part, part)}.{name}", shape)
        for part in names
        for name, shape in spec.layout(part)
    )
