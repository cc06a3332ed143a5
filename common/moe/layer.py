"""The mixture layer: a private gate over the experts this device holds.

Shape suffixes: B samples, D features, C classes, E experts in the whole mixture,
H experts held here, K experts a sample is routed to, N = B * K routed samples.

Which experts exist on a device is decided elsewhere; the layer never allocates one it
was not given.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Mixes = Literal["logits", "probabilities"]


class Expert(nn.Module):
    """One expert: features to class logits through one hidden layer.

    Parameters
    ----------
    scale : float
        Factor of the hidden activations; see ``MoELayer``.
    """

    def __init__(
        self, in_features: int, hidden: int, num_classes: int, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.hidden = nn.Linear(in_features, hidden)
        self.out = nn.Linear(hidden, num_classes)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Map features (N, D) to logits (N, C)."""
        return self.out(self.scale * torch.relu(self.hidden(x_ND)))


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What one pass through the layer produced, statistics included.

    Attributes
    ----------
    logits : Tensor, shape (B, C)
        The mixture's answer; their softmax are the class probabilities.
    expert_logits : Tensor, shape (N, C)
        Each routed sample's logits from the expert it was routed to.
    slots : Tensor of int, shape (N,)
        Position of that expert in ``held``.
    samples : Tensor of int, shape (N,)
        Which of the B samples it was.
    held_probs : Tensor, shape (B, H)
        Softmax over the held experts, the others masked.
    gate_logits : Tensor, shape (B, E)
        Gate logits over all experts, held or not.
    """

    logits: torch.Tensor
    expert_logits: torch.Tensor
    slots: torch.Tensor
    samples: torch.Tensor
    held_probs: torch.Tensor
    gate_logits: torch.Tensor

    def balance_loss(self) -> torch.Tensor:
        """Return the load-balancing loss of Switch Transformers (Eq. 4-6) over H.

        1 for a uniform split; above 1 the more the gate concentrates on few experts.
        """
        held = self.held_probs.shape[1]
        share_H = torch.bincount(self.slots, minlength=held) / len(self.slots)
        return held * (share_H * self.held_probs.mean(0)).sum()

    def entropy(self) -> torch.Tensor:
        """Return the mean entropy of the gate over the held experts, in nats."""
        return torch.special.entr(self.held_probs).sum(1).mean()


class MoELayer(nn.Module):
    """Gate, dispatch and combine.

    Parameters
    ----------
    held : sequence of int
        Sorted global ids of the experts on this device; only they are allocated.
    top_k : int
        Experts a sample is routed to among the held ones; 0 routes to all (soft).
    gate_features : int
        Width of the gate's input; equals ``in_features`` unless the gate looks at
        features of its own.
    scale : float
        Factor of features and of hidden activations, 1 / width of a sub-model: a sum
        over a share of the channels is as large as over all (the static scaling of
        HeteroFL, which FedRolex keeps), so the sub-model's weights fit the full model.
    mixes : {"logits", "probabilities"}
        What the gate's weights are applied to. Of ``probabilities``, the answer is
        log sum_e g_e p_e(y|x), so that its cross-entropy is the likelihood of the
        mixture (FedMix).

    Notes
    -----
    The weight of an expert is its softmax probability over the held experts, not
    renormalised over the chosen ones, so that the gate learns with ``top_k = 1`` too
    (Switch Transformers, Eq. 2).
    """

    held_ids: torch.Tensor

    def __init__(
        self,
        *,
        in_features: int,
        hidden: int,
        num_classes: int,
        num_experts: int,
        held: tuple[int, ...],
        top_k: int,
        gate_features: int | None = None,
        scale: float = 1.0,
        mixes: Mixes = "logits",
    ) -> None:
        super().__init__()
        self.scale = scale
        self.mixes = mixes
        self.top_k = min(top_k, len(held)) or len(held)
        self.gate = nn.Linear(gate_features or in_features, num_experts)
        self.experts = nn.ModuleDict(
            {str(e): Expert(in_features, hidden, num_classes, scale) for e in held}
        )
        self.register_buffer("held_ids", torch.tensor(held), persistent=False)

    def forward(
        self, x_BD: torch.Tensor, gate_input: torch.Tensor | None = None
    ) -> Routed:
        """Route features (B, D); the gate may look at other features than experts."""
        if self.scale != 1:
            x_BD = self.scale * x_BD
        gate_BE = self.gate(x_BD if gate_input is None else gate_input)
        # Selecting the held columns equals masking the others with -inf before the
        # softmax, without computing the masked ones.
        held_BH = gate_BE[:, self.held_ids]
        probs_BH = torch.softmax(held_BH, dim=1)
        weight_BK, slot_BK = probs_BH.topk(self.top_k, dim=1)
        slots, order = slot_BK.flatten().sort(stable=True)
        samples = order.div(self.top_k, rounding_mode="floor")
        expert_NC = self._dispatch(x_BD, slots, samples)
        if self.mixes == "logits":
            weighted_NC = expert_NC * weight_BK.flatten()[order, None]
            logits = torch.zeros(
                len(x_BD), expert_NC.shape[1], dtype=expert_NC.dtype, device=x_BD.device
            ).index_add_(0, samples, weighted_NC)
        else:
            # In logs throughout: the log of a product that underflowed has no gradient.
            weight_BK = held_BH.log_softmax(1).gather(1, slot_BK)
            joint_NC = expert_NC.log_softmax(1) + weight_BK.flatten()[order, None]
            by_sample = joint_NC[order.argsort()].unflatten(0, slot_BK.shape)
            logits = by_sample.logsumexp(1)
        return Routed(
            logits=logits,
            expert_logits=expert_NC,
            slots=slots,
            samples=samples,
            held_probs=probs_BH,
            gate_logits=gate_BE,
        )

    def _dispatch(
        self, x_BD: torch.Tensor, slots: torch.Tensor, samples: torch.Tensor
    ) -> torch.Tensor:
        """Run every expert on its routed samples, which ``slots`` has sorted."""
        experts = list(self.experts.values())
        counts = torch.bincount(slots, minlength=len(experts)).tolist()
        if self.top_k == len(experts):
            return self._all_experts(x_BD, experts)
        # Contiguous slices per expert: one matrix product each, no mask, no waste.
        routed = x_BD[samples].split(counts)
        return torch.cat([f(x) for f, x in zip(experts, routed, strict=True) if len(x)])

    def _all_experts(
        self, x_BD: torch.Tensor, experts: list[nn.Module]
    ) -> torch.Tensor:
        """Run all experts on all samples as two batched products.

        Stacking separate parameters keeps their gradients separate; indexing one
        stacked parameter in a loop would allocate a full-size gradient per expert.
        """

        def stack(name: str) -> torch.Tensor:
            return torch.stack([f.get_parameter(name) for f in experts])

        batch = x_BD.expand(len(experts), -1, -1)
        hidden = torch.baddbmm(
            stack("hidden.bias")[:, None], batch, stack("hidden.weight").mT
        )
        out = torch.baddbmm(
            stack("out.bias")[:, None],
            self.scale * torch.relu(hidden),
            stack("out.weight").mT,
        )
        return out.flatten(0, 1)
