"""Predictors: whole mixtures that answer with class probabilities.

Private gates stay on the clients, so the server often has nothing to route with; what
it can do then is average the members' predictions (``server_global``; docs/methods.md,
1).

A predictor maps inputs to probabilities when called. One that can also say which expert
answered is :class:`Explaining`; :func:`explaining` makes one of any.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from numpy.typing import ArrayLike
from torch import nn

from common.moe import mixing
from common.moe.layer import over_places
from common.moe.model import MoEModel

NO_EXPERT = -1
"""Given for the expert by a predictor that has none to name."""


class Answer(NamedTuple):
    """What a predictor says.

    Attributes
    ----------
    probabilities : Tensor, shape (B, C)
    experts : Tensor of int64, shape (B,)
        Global id of the expert with the largest part in each answer.
    """

    probabilities: torch.Tensor
    experts: torch.Tensor


@runtime_checkable
class Explaining(Protocol):
    """A predictor that names the expert behind an answer.

    What is exported is its answer: in a graph no shape depends on the data
    (``torch.compiler.is_exporting()``).
    """

    def answer(self, x: torch.Tensor) -> Answer:
        """Map inputs (B, *input_shape) to probabilities and experts."""


def explaining(predictor: nn.Module) -> Explaining:
    """Return the predictor, or one around it that names no expert."""
    return predictor if isinstance(predictor, Explaining) else Unexplained(predictor)


class Unexplained(nn.Module):
    """A predictor that only gives probabilities, with -1 for every expert.

    Parameters
    ----------
    predictor : nn.Module
        Inputs (B, *input_shape) to class probabilities (B, C).
    """

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, x: torch.Tensor) -> Answer:
        """Map inputs (B, *input_shape) to probabilities and -1."""
        probabilities: torch.Tensor = self.predictor(x)
        nobody = torch.full_like(probabilities[:, 0], NO_EXPERT, dtype=torch.int64)
        return Answer(probabilities, nobody)

    def answer(self, x: torch.Tensor) -> Answer:
        """Return the same."""
        return self(x)


class UsageMixture(nn.Module):
    """Weighted mean of the experts, layer by layer.

    Of experts that classify, their class probabilities are averaged; of experts inside
    an encoder, the features they give.

    Parameters
    ----------
    model : MoEModel
        Holding all experts that have weight.
    usage : array_like, shape (H,)
        Non-negative weight of each held expert; all zero in a layer means equal
        weights there.
    """

    model: MoEModel
    weights: torch.Tensor

    def __init__(self, model: MoEModel, usage: ArrayLike) -> None:
        super().__init__()
        self.model = model
        counts = [len(layer.experts) for layer in model.layers]
        layers = torch.as_tensor(usage, dtype=torch.float32).split(counts)
        self.register_buffer("weights", torch.cat([_shares(part) for part in layers]))
        self._counts = counts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (B, *input_shape) to class probabilities (B, C)."""
        if self.model.spec.encoder is None:
            seen = self.model.seen(x)
            return self._mixed(self.members(seen), self.shares(seen))
        pairs = zip(self.model.layers, self.weights.split(self._counts), strict=True)
        mixes = [mixing.averaged(layer, weights) for layer, weights in pairs]
        logits: torch.Tensor = self.model.extractor(x, mixes)
        return logits.softmax(1)

    def answer(self, x: torch.Tensor) -> Answer:
        """Name the expert that gives the likeliest class most of its probability.

        Inside an encoder no expert has a class: the most used of the last layer is
        named for every sample.
        """
        if self.model.spec.encoder is not None:
            probabilities = self(x)
            most_used = self.weights.split(self._counts)[-1].argmax()
            nothing = torch.zeros_like(probabilities[:, 0], dtype=torch.int64)
            return Answer(probabilities, nothing + self.model.last_held[most_used])
        seen = self.model.seen(x)
        members_HBC, shares_HB = self.members(seen), self.shares(seen)
        mixed_BC = self._mixed(members_HBC, shares_HB)
        chosen = mixed_BC.argmax(1).expand(len(members_HBC), 1, -1).mT
        given_HB = shares_HB * members_HBC.gather(2, chosen)[:, :, 0]
        return Answer(mixed_BC, self.model.moe.held_ids[given_HB.argmax(0)])

    def members(self, seen: torch.Tensor) -> torch.Tensor:
        """Map features or maps to the class probabilities (H, B, C) of all experts."""
        members = [f(seen).softmax(1) for f in self.model.moe.experts.values()]
        return torch.stack(members)

    def shares(self, seen: torch.Tensor) -> torch.Tensor:
        """Return the weight of every expert in every answer, shape (H, 1) or (H, B)."""
        del seen  # the same for all
        return self.weights[:, None]

    def _mixed(
        self, members_HBC: torch.Tensor, shares_HB: torch.Tensor
    ) -> torch.Tensor:
        if shares_HB.shape[1] == 1:
            return torch.einsum("hbc,h->bc", members_HBC, shares_HB[:, 0])
        return torch.einsum("hbc,hb->bc", members_HBC, shares_HB)


class GroupMixture(nn.Module):
    """Weighted mean of groups' predictions; a group's logits are its experts' sum.

    Parameters
    ----------
    model : MoEModel
        Holding the same number of experts of each group in every layer, group by group.
    weights : array_like, shape (G,)
        Non-negative weight of each group; all zero means equal weights.
    """

    weights: torch.Tensor

    def __init__(self, model: MoEModel, weights: ArrayLike) -> None:
        super().__init__()
        self.model = model
        shares = _shares(torch.as_tensor(weights, dtype=torch.float32))
        self.register_buffer("weights", shares)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (B, *input_shape) to class probabilities (B, C)."""
        seen = None if self.model.spec.encoder else self.model.seen(x)
        answers = [
            weight * self._logits(x, seen, group).softmax(1)
            for group, weight in enumerate(self.weights)
        ]
        return torch.stack(answers).sum(0)

    def _logits(
        self, x: torch.Tensor, seen: torch.Tensor | None, group: int
    ) -> torch.Tensor:
        """Return the logits (B, C) of one group."""
        size = len(self.model.layers[0].experts) // len(self.weights)
        mine = slice(group * size, (group + 1) * size)
        if seen is not None:
            experts = [*self.model.moe.experts.values()][mine]
            return torch.stack([expert(seen) for expert in experts]).sum(0)
        ones = torch.zeros(size * len(self.weights), device=x.device)
        ones[mine] = 1
        mixes = [mixing.averaged(layer, ones) for layer in self.model.layers]
        logits: torch.Tensor = self.model.extractor(x, mixes)
        return logits


class ServerGated(UsageMixture):
    """The same mean, weighted sample by sample by a gate of the server's own.

    Its logits are added to the log of the experts' usage: an untrained gate of zeros
    is the mean by usage.

    Parameters
    ----------
    model : MoEModel
        Holding all experts, which classify.
    usage : array_like, shape (E,)

    Attributes
    ----------
    gate : nn.Linear
        Features (B, D) to logits (B, E); zeros at first.
    """

    def __init__(self, model: MoEModel, usage: ArrayLike) -> None:
        super().__init__(model, usage)
        features = int(model.extractor.out_features)  # type: ignore[arg-type]
        self.gate = nn.Linear(features, len(self.weights))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def shares(self, seen: torch.Tensor) -> torch.Tensor:
        """Return the weight of every expert in every answer, shape (H, B)."""
        # An expert nobody used yet has a tiny weight, not none: the gate may raise it.
        prior = self.weights.clamp_min(1e-6).log()
        return (self.gate(over_places(seen)) + prior).softmax(1).T


def _shares(usage: torch.Tensor) -> torch.Tensor:
    weights = usage if usage.sum() > 0 else torch.ones_like(usage)
    return weights / weights.sum()


class GatedMixture(nn.Module):
    """The mixture with its gate: a device's own, or a gate that is the server's to use.

    Parameters
    ----------
    model : MoEModel
        Gate loaded; holds all experts that may answer.
    """

    def __init__(self, model: MoEModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs (B, *input_shape) to class probabilities (B, C)."""
        return self.model(x).logits.softmax(1)

    def answer(self, x: torch.Tensor) -> Answer:
        """Name the expert the gate, of the last layer, trusts most."""
        routed = self.model(x)
        trust = routed.layers[-1].held_probs
        if (samples := routed.layers[-1].samples) is not None:
            nothing = trust.new_zeros(x.shape[0], trust.shape[1])
            trust = nothing.index_add(0, samples, trust)
        return Answer(routed.logits.softmax(1), self.model.last_held[trust.argmax(1)])
