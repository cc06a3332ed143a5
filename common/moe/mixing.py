"""What a mixture layer does inside an encoder: route tokens, or do without a gate.

Each function returns a :data:`common.moe.encoder.Mix` for one layer. Padding is never
routed and never counted; what comes out at its places is never looked at.

Shape suffixes: as in :mod:`common.moe.layer`; B texts, T tokens, M real tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from common.moe.encoder import Mix, RoutingLevel, Update, pooled
from common.moe.experts import run_experts
from common.moe.layer import MoELayer
from common.moe.routing import Routing


@dataclass(frozen=True)
class _Mix:
    choose: Callable[[torch.Tensor, torch.Tensor], Update]

    def __call__(self, x_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
        return self.choose(x_BTD, real_BT)(x_BTD, 0)


def routed(
    layer: MoELayer,
    level: RoutingLevel,
    common: torch.Tensor | None,
    record: list[Routing],
) -> Mix:
    """Route the real tokens.

    Parameters
    ----------
    layer : MoELayer
    level : {"token", "sequence"}
        What the gate sees.
    common : Tensor, shape (B, G), or None
        What it sees instead, where it has a network of its own (FedJETs).
    record : list of Routing
        Where the layer's routing is appended to.
    """

    def choose(x_BTD: torch.Tensor, real_BT: torch.Tensor) -> Update:
        flat = x_BTD.flatten(0, 1)
        # The shapes of an exported graph do not depend on the data: there padding is
        # routed as well, and counts nothing.
        static = torch.compiler.is_exporting()
        if static:
            rows = torch.arange(flat.shape[0], device=flat.device)
        else:
            rows = real_BT.flatten().nonzero()[:, 0]
        samples = rows.div(x_BTD.shape[1], rounding_mode="floor")
        gate_BG = _gate_input(x_BTD, real_BT, level, common)
        seen = flat.index_select(0, rows) if gate_BG is None else gate_BG[samples]
        # A text whose tokens go together is drawn as one.
        whole = level == "sequence"
        drawn = layer.draw((x_BTD if whole else rows).shape[0])
        if drawn is not None and whole:
            drawn = drawn[samples]
        weight_MK, routing = layer.choose(seen, drawn)
        routing = replace(routing, samples=samples)
        if static:
            counted = routing.held_probs * real_BT.flatten()[:, None]
            routing = replace(routing, held_probs=counted)
        record.append(routing)

        def answer(x_BTD: torch.Tensor, module: int) -> torch.Tensor:
            x_MD = x_BTD.flatten(0, 1).index_select(0, rows)
            expert_MKO = run_experts(x_MD, layer.members(module), routing.slots)
            output_MO = layer.combine(expert_MKO, weight_MK)
            out = output_MO.new_zeros(real_BT.numel(), output_MO.shape[1])
            return out.index_copy(0, rows, output_MO).unflatten(0, real_BT.shape)

        return answer

    return _Mix(choose)


def averaged(layer: MoELayer, weights_H: torch.Tensor) -> Mix:
    """Return the held experts' mean with these weights, without any gate."""

    def answer(x_BTD: torch.Tensor, module: int) -> torch.Tensor:
        members = torch.stack([f(x_BTD) for f in layer.members(module)])
        return torch.einsum("hbtd,h->btd", members, weights_H)

    return _Mix(lambda *_: answer)


def _gate_input(
    x_BTD: torch.Tensor,
    real_BT: torch.Tensor,
    level: RoutingLevel,
    common: torch.Tensor | None,
) -> torch.Tensor | None:
    """Return what the gate sees of each text, None where it sees every token."""
    if common is not None:
        return common
    return pooled(x_BTD, real_BT) if level == "sequence" else None
