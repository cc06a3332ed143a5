"""Local training and evaluation on one device: plain PyTorch, no Flower.

Per-expert samples, accuracy and loss come out of the training passes themselves; no
second pass over the data measures them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from client_app.sgd import SGD
from client_app.statistics import LocalResult, Tally
from common.moe import MoEModel, Routed, Routing
from common.moe.cost import evaluation_batch
from common.sections import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The local loss: cross-entropy of the mixture plus weighted terms.

    Attributes
    ----------
    gate_balance : float
        Weight of the load-balancing loss over the held experts.
    gate_entropy : float
        Weight of the gate's entropy; negative rewards a spread gate (FedMix).
    gate_supervision : float
        Weight of -log of the gate's mass on the held experts, among all experts: with
        one expert held, the cross-entropy that names it (anchors of FedJETs).
    proximal : float
        mu of mu/2 ||w - w_t||^2 against the weights received (FedProx, Eq. 2).
    shift : Tensor, shape (C,), or None
        Added to the logits in the cross-entropy (logit adjustment, Menon et al., ICLR
        2021): with the log of the label frequencies there, the logits themselves learn
        what tells classes apart and not which are frequent here.
    """

    gate_balance: float = 0.0
    gate_entropy: float = 0.0
    gate_supervision: float = 0.0
    proximal: float = 0.0
    shift: torch.Tensor | None = None

    def loss(
        self,
        routed: Routed,
        y: torch.Tensor,
        model: MoEModel,
        anchor: list[torch.Tensor],
    ) -> torch.Tensor:
        """Return the scalar training loss of one batch."""
        shifted = routed.logits if self.shift is None else routed.logits + self.shift
        loss = F.cross_entropy(shifted, y)
        if self.gate_balance and len(model.held) > len(model.layers):
            loss = loss + self.gate_balance * routed.balance_loss()
        if self.gate_entropy:
            loss = loss + self.gate_entropy * routed.entropy()
        if self.gate_supervision:
            pairs = zip(routed.layers, model.layers, strict=True)
            masses = [held_mass(routing, layer.held_ids) for routing, layer in pairs]
            loss = loss - self.gate_supervision * torch.stack(masses).mean()
        if self.proximal:
            parameters = (p for p in model.parameters() if p.requires_grad)
            distance = sum(
                (p - a).pow(2).sum() for p, a in zip(parameters, anchor, strict=True)
            )
            loss = loss + 0.5 * self.proximal * distance
        return loss


def held_mass(routing: Routing, held: torch.Tensor) -> torch.Tensor:
    """Return the mean log of the gate's mass on the held experts, among all."""
    gate = routing.gate_logits
    return (gate.index_select(1, held).logsumexp(1) - gate.logsumexp(1)).mean()


def train(
    model: MoEModel,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    settings: TrainingSettings,
    objective: Objective,
    rng: np.random.Generator,
) -> LocalResult:
    """Train ``model`` in place for ``local_epochs`` epochs of SGD.

    Parameters
    ----------
    x : Tensor of float, shape (n, *input_shape)
    y : Tensor of int, shape (n,)
    rng : Generator
        Orders the samples; the same stream gives the same weights bit for bit.

    Returns
    -------
    LocalResult
        Statistics of the last epoch.
    """
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    anchor = [p.detach().clone() for p in parameters] if objective.proximal else []
    optimizer = SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    tally = Tally(model)
    for epoch in range(settings.local_epochs):
        last = epoch == settings.local_epochs - 1
        order = torch.from_numpy(rng.permutation(len(y))).to(x.device)
        for batch in order.split(settings.batch_size):
            routed = model(x[batch])
            loss = objective.loss(routed, y[batch], model, anchor)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if last:
                tally.add(routed, y[batch])
    # What comes next is evaluation: a gradient of every weight is a copy of the model.
    optimizer.zero_grad()
    return tally.result()


@torch.inference_mode()
def accuracy(
    model: MoEModel,
    x: torch.Tensor,
    y: torch.Tensor,
    shift: torch.Tensor | None = None,
) -> float:
    """Return the share of samples the mixture classifies correctly.

    Parameters
    ----------
    shift : Tensor, shape (C,), optional
        Added to the logits of every sample.
    """
    model.eval()
    correct, size = 0, evaluation_batch(model.spec)
    for images, labels in zip(x.split(size), y.split(size), strict=True):
        logits = model(images).logits
        if shift is not None:
            logits = logits + shift
        correct += int((logits.argmax(1) == labels).sum())
    return correct / len(y)
