"""Fed-MoE's server model: main expert, routed experts, gate and alpha; METHODS 3.

Every expert is a whole compact model (extractor and one expert of ours), and so is the
gate but for its last layer, which has one output per routed expert.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from common.moe import GATE, Layout, ModelSpec, MoEModel, Vector
from common.moe.model import EXTRACTOR, pack, unpack_into
from common.seeding import derive


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
        model = self.spec.build([0], derive(seed, "server-gate"))
        self.extractor, self.linear = model.extractor, model.moe.gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, *input_shape) to logits (B, K); their softmax is Q (Eq. 3)."""
        return self.linear(self.extractor(x))

    def vector(self) -> Vector:
        """Return both parts as one flat vector."""
        return join([pack(self.extractor), pack(self.linear)])

    def load(self, vector: Vector) -> None:
        """Copy such a vector back."""
        parts = cut(vector, [self.spec.size(EXTRACTOR), self.spec.size(GATE)])
        for module, part in zip((self.extractor, self.linear), parts, strict=True):
            unpack_into(module, part, GATE)

    def layout(self) -> Layout:
        """Return name and shape of the tensors in :meth:`vector`."""
        return joined_layout(
            {"extractor": self.spec.layout(EXTRACTOR), "linear": self.spec.layout(GATE)}
        )


def gate_loss(
    logits: torch.Tensor,
    alpha: torch.Tensor,
    main: torch.Tensor,
    routed: torch.Tensor,
    y: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Return L^ce + beta L^ent, the joint loss of gate and alpha (Eq. 7-9).

    Parameters
    ----------
    logits : Tensor, shape (B, K)
        The gate's.
    alpha : Tensor, scalar
    main, routed : Tensor, shapes (B, C) and (B, K, C)
        Class probabilities of the main and of every routed expert.
    y : Tensor of int, shape (B,)
    beta : float
        Weight of the gating entropy.
    """
    gates = logits.softmax(1)
    mixed = torch.einsum("bk,bkc->bc", gates, routed)
    answer = (1 - alpha) * main + alpha * mixed  # Eq. 1
    true = answer.gather(1, y[:, None]).clamp_min(torch.finfo(answer.dtype).tiny)
    entropy = torch.special.entr(gates).sum(1)
    return -true.log().mean() + beta * entropy.mean()


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


def join(vectors: Iterable[Vector]) -> Vector:
    """Return the vectors of several parts as one."""
    return np.concatenate(list(vectors))


def cut(vector: Vector, sizes: Iterable[int]) -> Iterator[Vector]:
    """Yield views of the parts that :func:`join` put together."""
    start = 0
    for size in sizes:
        yield vector[start : start + size]
        start += size


def joined_layout(layouts: dict[str, Layout]) -> Layout:
    """Return the layout of joined parts, their tensors prefixed by the part's name."""
    return tuple(
        (f"{part}.{name}", shape)
        for part, layout in layouts.items()
        for name, shape in layout
    )
