"""Where a gate sent what, and what is computed of that: losses and entropies.

Shape suffixes: as in :mod:`common.moe.layer`.
"""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How a gate tries experts it would not choose, in training only.

    Attributes
    ----------
    share : float
        Chance that what is routed goes to held experts drawn at random.
    generator : torch.Generator
        Of the CPU; draws whether and where.
    """

    share: float
    generator: torch.Generator


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Where one layer sent what, in one pass.

    Attributes
    ----------
    slots : Tensor of int, shape (M, K)
        To which of the held experts, by its position in ``held``.
    held_probs : Tensor, shape (M, H)
        Softmax over the held experts, the others masked.
    gate_logits : Tensor, shape (M, E)
        Gate logits over all experts of the layer, held or not.
    samples : Tensor of int, shape (M,), or None
        Sample of the batch each position belongs to; None where positions are samples.
    expert_logits : Tensor, shape (M, K, C), or None
        Class logits of the experts each position was routed to; None for a layer inside
        an encoder, whose experts do not classify.
    """

    slots: torch.Tensor
    held_probs: torch.Tensor
    gate_logits: torch.Tensor
    samples: torch.Tensor | None = None
    expert_logits: torch.Tensor | None = None

    def float32(self) -> "Routing":
        """Return the same in float32, whatever it was computed in."""
        own = self.expert_logits
        return replace(
            self,
            held_probs=self.held_probs.float(),
            gate_logits=self.gate_logits.float(),
            expert_logits=None if own is None else own.float(),
        )

    def balance_loss(self) -> torch.Tensor:
        """Return the load-balancing loss of Switch Transformers (Eq. 4-6) over H.

        1 for a uniform split; above 1 the more the gate concentrates on few experts.
        """
        held = self.held_probs.shape[1]
        slots = self.slots.flatten()
        share_H = torch.bincount(slots, minlength=held) / len(slots)
        return held * (share_H * self.held_probs.mean(0)).sum()

    def entropy(self) -> torch.Tensor:
        """Return the mean entropy of the gate over the held experts, in nats."""
        return mean_entropy(self.held_probs)


def mean_entropy(gates: torch.Tensor) -> torch.Tensor:
    """Return the mean entropy of rows of probabilities (M, E), in nats.

    Where a gate is so sure that a probability underflows to 0, the slope of -p log p is
    infinite, and one such sample would make every weight of the gate NaN: the log stops
    at the smallest normal number.
    """
    logs = gates.clamp_min(torch.finfo(gates.dtype).tiny).log()
    return -(gates * logs).sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What one pass through the model produced, statistics included.

    Attributes
    ----------
    logits : Tensor, shape (B, C)
        The mixture's answer; their softmax are the class probabilities.
    layers : tuple of Routing
        One for each mixture layer, from the input on.
    """

    logits: torch.Tensor
    layers: tuple[Routing, ...]

    def float32(self) -> "Routed":
        """Return the same in float32, whatever it was computed in."""
        return replace(
            self,
            logits=self.logits.float(),
            layers=tuple(layer.float32() for layer in self.layers),
        )

    def balance_loss(self) -> torch.Tensor:
        """Return the load-balancing loss, the mean over layers."""
        return _mean([layer.balance_loss() for layer in self.layers])

    def entropy(self) -> torch.Tensor:
        """Return the gates' mean entropy over held experts and layers, in nats."""
        return _mean([layer.entropy() for layer in self.layers])


def _mean(values: list[torch.Tensor]) -> torch.Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean()
