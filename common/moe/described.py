"""A predictor in words and back: what it takes beside its model to be built elsewhere.

The server sends its predictor to devices, which measure it. What is not one of the
predictors of :mod:`common.moe.ensemble` cannot be told in these words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from common.moe.ensemble import (
    GatedMixture,
    GroupMixture,
    ServerGated,
    UsageMixture,
)
from common.moe.model import MoEModel
from common.moe.vectors import pack, unpack_into
from common.parts import GATE, Vector

PredictorKind = Literal["usage", "server-gate", "gate", "groups"]
"""Mean by usage; the same weighted by a gate of the server's own; the model's gate;
mean over groups of experts that add up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Description:
    """One predictor.

    Attributes
    ----------
    kind : {"usage", "server-gate", "gate", "groups"}
    model : MoEModel
    weights : list of float
        Share of each held expert, or group; empty with the model's own gate.
    server_gate : list of float
        The gate of the server's own as one vector; empty without.
    """

    kind: PredictorKind
    model: MoEModel
    weights: list[float]
    server_gate: list[float]

    def vectors(self) -> dict[str, Vector]:
        """Return the parts of the model that the predictor computes with."""
        names = [
            name for name in self.model.parts() if name != GATE or self.kind == "gate"
        ]
        return self.model.vectors(names)


def describe(predictor: nn.Module) -> Description | None:
    """Return a predictor in words; None if it is one of another kind."""
    if type(predictor) is GatedMixture:
        return Description(
            kind="gate", model=predictor.model, weights=[], server_gate=[]
        )
    if type(predictor) is ServerGated:
        return Description(
            kind="server-gate",
            model=predictor.model,
            weights=predictor.weights.tolist(),
            server_gate=pack(predictor.gate).tolist(),
        )
    if type(predictor) is UsageMixture or type(predictor) is GroupMixture:
        return Description(
            kind="usage" if type(predictor) is UsageMixture else "groups",
            model=predictor.model,
            weights=predictor.weights.tolist(),
            server_gate=[],
        )
    return None


def alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two predictors are known to be the same, bit for bit.

    Of a kind that cannot be told in words nothing is known.
    """
    a, b = describe(one), describe(other)
    if a is None or b is None or a.model.spec != b.model.spec:
        return False
    said, other_said = (
        (each.kind, each.weights, each.server_gate, each.model.held) for each in (a, b)
    )
    mine, others = a.vectors(), b.vectors()
    return said == other_said and all(
        np.array_equal(mine[name], others[name]) for name in mine
    )


def predictor_of(
    kind: PredictorKind,
    model: MoEModel,
    weights: Sequence[float],
    server_gate: Sequence[float],
) -> nn.Module:
    """Build a predictor again, to the same bits.

    Raises
    ------
    ValueError
        If there are not as many weights as experts, or values as the gate has, or the
        experts cannot be shared out among the groups.
    """
    if kind == "gate":
        return GatedMixture(model)
    if kind == "groups":
        return _of_groups(model, weights)
    if len(weights) != len(model.held):
        raise ValueError(f"{len(weights)} weights of {len(model.held)} experts")
    mixture = (UsageMixture if kind == "usage" else ServerGated)(model, weights)
    # What is divided by its sum a second time may change in its last bit.
    mixture.weights.copy_(torch.tensor(weights, dtype=torch.float32))
    if isinstance(mixture, ServerGated):
        vector = np.array(server_gate, dtype=np.float32)
        unpack_into(mixture.gate, vector, "server-gate")
    return mixture


def _of_groups(model: MoEModel, weights: Sequence[float]) -> GroupMixture:
    held = {len(layer.experts) for layer in model.layers}
    if not weights or len(held) > 1 or held.pop() % len(weights):
        raise ValueError(f"{len(model.held)} experts of {len(weights)} groups")
    mixture = GroupMixture(model, weights)
    mixture.weights.copy_(torch.tensor(weights, dtype=torch.float32))
    return mixture
