"""What a mixture layer does inside an encoder: route tokens, or do without a gate.

Each function returns a :data:`common.moe.encoder.Mix` for one layer. Padding is never
routed and never counted; what comes out at its places is never looked at.

Shape suffixes: as in :mod:`common.moe.layer`; B texts, T tokens, M real tokens.
"""

from dataclasses import replace

import torch

from common.moe.encoder import Mix, RoutingLevel, pooled
from common.moe.layer import MoELayer, Routing


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

    def mix(x_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
        flat = x_BTD.flatten(0, 1)
        rows = real_BT.flatten().nonzero()[:, 0]
        samples = rows.div(x_BTD.shape[1], rounding_mode="floor")
        gate_BG = _gate_input(x_BTD, real_BT, level, common)
        gate_MG = None if gate_BG is None else gate_BG[samples]
        output_MD, routing = layer(flat.index_select(0, rows), gate_MG)
        record.append(replace(routing, samples=samples, expert_logits=None))
        out = torch.zeros_like(flat).index_copy(0, rows, output_MD)
        return out.view_as(x_BTD)

    return mix


def masked(
    layer: MoELayer,
    level: RoutingLevel,
    common: torch.Tensor | None,
    record: list[torch.Tensor],
) -> Mix:
    """Do the same with static shapes; the gate's mass on each text is appended.

    Parameters
    ----------
    record : list of Tensor, shape (B, H)
        Summed over the text's real tokens.
    """

    def mix(x_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
        tokens = x_BTD.shape[1]
        gate_BG = _gate_input(x_BTD, real_BT, level, common)
        gate_MG = None
        if gate_BG is not None:
            gate_MG = gate_BG[:, None].expand(-1, tokens, -1).flatten(0, 1)
        output_MD, held_MH = layer.masked(x_BTD.flatten(0, 1), gate_MG)
        probs_BTH = held_MH.softmax(1).unflatten(0, (-1, tokens))
        record.append((probs_BTH * real_BT[:, :, None]).sum(1))
        return output_MD.unflatten(0, (-1, tokens))

    return mix


def averaged(layer: MoELayer, weights_H: torch.Tensor) -> Mix:
    """Return the held experts' mean with these weights, without any gate."""

    def mix(x_BTD: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
        del real_BT
        members = torch.stack([f(x_BTD) for f in layer.experts.values()])
        return torch.einsum("hbtd,h->btd", members, weights_H)

    return mix


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
