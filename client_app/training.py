"""Local training and evaluation on one device: plain PyTorch, no Flower.

Per-expert samples, accuracy and loss come out of the training passes themselves; no
second pass over the data measures them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from client_app.model_inputs import ModelInputs
from client_app.statistics import LocalResult, Tally
from common.class_counts import ClassCounts
from common.cost import evaluation_batch
from common.losses import smoothed_cross_entropy
from common.moe import Exploration, MoEModel, Routed, Routing
from common.moe.batches import batches_of
from common.moe.counting import count_answers
from common.settings.training_settings import TrainingSettings
from common.steps import Steps

Beside = Callable[[torch.Tensor, torch.Tensor], None]
Change = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]


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
    gate_exploration : float
        Share of the samples (or tokens) that go to held experts by chance, so that none
        is without evidence because its gate never chose it (epsilon-greedy).
    proximal : float
        mu of mu/2 ||w - w_t||^2 (FedProx, Eq. 2).
    anchor : list of Tensor, or None
        w_t, for every parameter that is trained; None for those training starts from.
    shift : Tensor, shape (C,), or None
        Added to the logits in the cross-entropy (logit adjustment, Menon et al., ICLR
        2021): with the log of the label frequencies there, the logits themselves learn
        what tells classes apart and not which are frequent here.
    present : Tensor of float, shape (C,), or None
        1 for the classes the client has, 0 for those whose logits are 0 in the
        cross-entropy: what it has never seen is not unlearnt (HeteroFL).
    """

    gate_balance: float = 0.0
    gate_entropy: float = 0.0
    gate_supervision: float = 0.0
    gate_exploration: float = 0.0
    proximal: float = 0.0
    anchor: list[torch.Tensor] | None = None
    shift: torch.Tensor | None = None
    present: torch.Tensor | None = None

    def judged(
        self, logits: torch.Tensor, y: torch.Tensor, smoothing: float
    ) -> torch.Tensor:
        """Return the mean cross-entropy of logits (B, C) with labels (B,), a scalar."""
        if self.present is not None:
            logits = logits * self.present
        if self.shift is not None:
            logits = logits + self.shift
        return smoothed_cross_entropy(logits, y, smoothing, self.present)

    def loss(
        self,
        routed: Routed,
        y: torch.Tensor,
        model: MoEModel,
        anchor: list[torch.Tensor],
        smoothing: float,
    ) -> torch.Tensor:
        """Return the scalar training loss of one batch.

        Parameters
        ----------
        anchor : list of Tensor
            w_t; looked at only where ``proximal`` is above 0.
        smoothing : float
            Of the labels (``label-smoothing``).
        """
        loss = self.judged(routed.logits, y, smoothing)
        if model.spec.mixes == "sum" and model.spec.encoder is None:
            gated = beside(routed.layers[0], model.spec.top_k)
            loss = loss + self.judged(gated, y, smoothing)
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


def beside(routing: Routing, whole: int) -> torch.Tensor:
    """Return what a gate makes of the experts of a sum, whose gradients stop here.

    The gate learns from these logits (B, C), and nothing else does: experts that follow
    gates that nobody shares fall apart.
    """
    assert routing.expert_logits is not None
    weights = routing.held_probs.gather(1, routing.slots)[:, :, None]
    return whole * (routing.expert_logits.detach() * weights).sum(1)


def held_mass(routing: Routing, held: torch.Tensor) -> torch.Tensor:
    """Return the mean log of the gate's mass on the held experts, among all."""
    gate = routing.gate_logits
    return (gate.index_select(1, held).logsumexp(1) - gate.logsumexp(1)).mean()


def train(
    model: MoEModel,
    x: torch.Tensor | ModelInputs,
    y: torch.Tensor,
    *,
    settings: TrainingSettings,
    objective: Objective,
    rng: np.random.Generator,
    beside: Beside | None = None,
    augment: Change | None = None,
) -> LocalResult:
    """Train ``model`` in place for ``local_epochs`` epochs.

    Parameters
    ----------
    x : Tensor of float, shape (n, *input_shape), or ModelInputs
        n is at least 1; fewer than a batch are one batch.
    y : Tensor of int, shape (n,)
    rng : Generator
        Orders the samples; the same stream gives the same weights bit for bit.
    beside : callable, optional
        Is given every batch before the model's own step: what else is trained on it.
    augment : callable, optional
        Changes the inputs of every batch; see :class:`common.augment.Augment`.

    Returns
    -------
    LocalResult
        Statistics of the last epoch.
    """
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    anchor = objective.anchor or []
    if objective.proximal and not anchor:
        anchor = [p.detach().clone() for p in parameters]
    steps, smoothing = Steps(parameters, settings), settings.label_smoothing
    choosing = [f for f in model.layers if f.top_k < len(f.held_ids)]
    if objective.gate_exploration and choosing:
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        explore = Exploration(share=objective.gate_exploration, generator=generator)
        for layer in choosing:
            layer.exploration = explore
    # A stream of its own: the order of the samples is what it is without.
    [changes] = rng.spawn(1) if augment else [rng]
    tally = Tally(model)
    for epoch in range(settings.local_epochs):
        last = epoch == settings.local_epochs - 1
        order = torch.from_numpy(rng.permutation(len(y))).to(x.device)
        for batch in batches_of(order, settings.batch_size, model):
            inputs, labels = x[batch], y[batch]
            if augment is not None:
                inputs = augment(inputs, changes)
            if beside is not None:
                beside(inputs, labels)
            routed = steps.forward(model, inputs)
            steps.take(objective.loss(routed, labels, model, anchor, smoothing))
            if last:
                tally.add(routed, labels)
    steps.clear()  # what comes next is evaluation
    return tally.result()


def evaluate(
    model: MoEModel,
    x: torch.Tensor | ModelInputs,
    y: torch.Tensor,
    shift: torch.Tensor | None = None,
) -> ClassCounts:
    """Return what the mixture answers to samples, class by class.

    Parameters
    ----------
    x : Tensor, shape (n, *input_shape)
    y : Tensor of int, shape (n,)
    shift : Tensor, shape (C,), optional
        Added to the logits of every sample.
    """
    model.eval()

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        logits = model(inputs).logits
        return logits if shift is None else logits + shift

    return count_answers(
        predict,
        x,
        y,
        num_classes=model.spec.num_classes,
        batch=evaluation_batch(model.spec),
    )
