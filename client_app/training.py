"""Local training and evaluation on one device: plain PyTorch, no Flower.

Per-expert samples, accuracy and loss come out of the training passes themselves; no
second pass over the data measures them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from client_app.sgd import SGD
from common.moe import MoEModel, Routed
from common.moe.cost import EVALUATION_BATCH
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
        if self.gate_balance and len(model.moe.experts) > 1:
            loss = loss + self.gate_balance * routed.balance_loss()
        if self.gate_entropy:
            loss = loss + self.gate_entropy * routed.entropy()
        if self.gate_supervision:
            gate = routed.gate_logits
            mass = gate[:, model.moe.held_ids].logsumexp(1) - gate.logsumexp(1)
            loss = loss - self.gate_supervision * mass.mean()
        if self.proximal:
            parameters = (p for p in model.parameters() if p.requires_grad)
            distance = sum(
                (p - a).pow(2).sum() for p, a in zip(parameters, anchor, strict=True)
            )
            loss = loss + 0.5 * self.proximal * distance
        return loss


@dataclass(frozen=True, kw_only=True)
class LocalResult:
    """Statistics of the last local epoch.

    Attributes
    ----------
    samples : ndarray of int, shape (H,)
        Samples routed to each held expert, u_{c,e}.
    accuracy, loss : ndarray, shape (H,)
        a_{c,e} and l_{c,e}: each expert's own answers on its samples; 0 where none.
    gate_mass : ndarray, shape (E,)
        Mean softmax of the gate over all experts of the mixture.
    responsibility : ndarray, shape (H,)
        Mean posterior of each held expert given input and label.
    input_information, label_information : ndarray, shape (E,)
        Each expert's share, in nats, of I(X; Z) and of I(Y; Z), where Z is the expert
        the gate would draw for a sample.
    train_loss : float
        Mean cross-entropy of the mixture.
    """

    samples: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]
    gate_mass: NDArray[np.float64]
    responsibility: NDArray[np.float64]
    input_information: NDArray[np.float64]
    label_information: NDArray[np.float64]
    train_loss: float


class _Tally:
    """Running per-expert sums over the passes of one epoch."""

    def __init__(self, held: int, experts: int, classes: int) -> None:
        self.seen = 0
        self.train_loss = 0.0
        self.samples = torch.zeros(held, dtype=torch.float64)
        self.correct = torch.zeros(held, dtype=torch.float64)
        self.loss = torch.zeros(held, dtype=torch.float64)
        self.gate_by_label = torch.zeros(classes, experts, dtype=torch.float64)
        self.gate_entropy = torch.zeros(experts, dtype=torch.float64)
        self.labels = torch.zeros(classes, dtype=torch.float64)
        self.responsibility = torch.zeros(held, dtype=torch.float64)

    @torch.no_grad()
    def add(self, routed: Routed, y: torch.Tensor) -> None:
        target = y[routed.samples]
        loss = F.cross_entropy(routed.expert_logits, target, reduction="none")
        hit = routed.expert_logits.argmax(1) == target
        slots = routed.slots.cpu()
        self.seen += len(y)
        self.samples += torch.bincount(slots, minlength=len(self.samples))
        self.correct.index_add_(0, slots, hit.cpu().double())
        self.loss.index_add_(0, slots, loss.cpu().double())
        gate, labels = routed.gate_logits.softmax(1).cpu().double(), y.cpu()
        self.labels += torch.bincount(labels, minlength=len(self.labels))
        self.gate_by_label.index_add_(0, labels, gate)
        self.gate_entropy += torch.special.entr(gate).sum(0)
        self.train_loss += float(F.cross_entropy(routed.logits, y)) * len(y)
        # r_{i,e} ~ g_e(x_i) p_e(y_i | x_i), normalised over the experts that answered
        # sample i; in logs because p underflows.
        prior = routed.held_probs[routed.samples, routed.slots]
        joint = torch.full_like(routed.held_probs, -torch.inf)
        joint[routed.samples, routed.slots] = prior.log() - loss
        self.responsibility += joint.softmax(1).sum(0).cpu().double()

    def result(self) -> LocalResult:
        routed = self.samples.clamp_min(1)
        mean = self.gate_by_label.sum(0) / self.seen
        # I(X; Z) = H(Z) - H(Z | X), expert by expert; the same given the label.
        total = torch.special.entr(mean)
        given_label = self.gate_by_label / self.labels.clamp_min(1)[:, None]
        share = self.labels / self.seen
        label_entropy = share @ torch.special.entr(given_label)
        return LocalResult(
            samples=self.samples.long().numpy(),
            accuracy=(self.correct / routed).numpy(),
            loss=(self.loss / routed).numpy(),
            gate_mass=mean.numpy(),
            responsibility=(self.responsibility / self.seen).numpy(),
            input_information=(total - self.gate_entropy / self.seen).numpy(),
            label_information=(total - label_entropy).numpy(),
            train_loss=self.train_loss / self.seen,
        )


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
    spec = model.spec
    tally = _Tally(len(model.moe.experts), spec.num_experts, spec.num_classes)
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
    correct = 0
    for images, labels in zip(
        x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True
    ):
        logits = model(images).logits
        if shift is not None:
            logits = logits + shift
        correct += int((logits.argmax(1) == labels).sum())
    return correct / len(y)
