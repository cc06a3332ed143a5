"""Per-expert statistics of local training, out of the training passes themselves."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from common.moe import MoEModel, Routed, Routing


@dataclass(frozen=True, kw_only=True)
class LocalResult:
    """Statistics of the last local epoch; H experts held of E, in all layers together.

    Attributes
    ----------
    samples : ndarray of int, shape (H,)
        Samples routed to each held expert, u_{c,e}; tokens inside an encoder.
    accuracy, loss : ndarray, shape (H,)
        a_{c,e} and l_{c,e}: each expert's own answers on its samples; 0 where none.
        An expert inside an encoder does not answer: of it, the whole model's answers
        to the texts whose tokens it got, weighted by these tokens.
    gate_mass : ndarray, shape (E,)
        Mean softmax of its layer's gate.
    responsibility : ndarray, shape (H,)
        Mean posterior of each held expert given input and label; inside an encoder,
        given the input alone.
    input_information, label_information : ndarray, shape (E,)
        Each expert's share, in nats, of I(X; Z) and of I(Y; Z), where Z is the expert
        the gate of its layer would draw.
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


class Tally:
    """Running sums over the passes of one epoch.

    Parameters
    ----------
    model : MoEModel
    """

    def __init__(self, model: MoEModel) -> None:
        spec = model.spec
        self._seen = 0
        self._train_loss = 0.0
        self._layers = [
            _LayerTally(len(layer.experts), spec.num_experts, spec.num_classes)
            for layer in model.layers
        ]

    @torch.no_grad()
    def add(self, routed: Routed, y: torch.Tensor) -> None:
        """Take in one batch with labels y, shape (B,)."""
        self._seen += len(y)
        self._train_loss += float(F.cross_entropy(routed.logits, y)) * len(y)
        for tally, routing in zip(self._layers, routed.layers, strict=True):
            tally.add(routing, routed.logits, y)

    def result(self) -> LocalResult:
        """Return the statistics, layer by layer one after another."""
        layers = [layer.result() for layer in self._layers]
        return LocalResult(
            **{
                name: np.concatenate([each[name] for each in layers])
                for name in layers[0]
            },
            train_loss=self._train_loss / max(1, self._seen),
        )


class _LayerTally:
    def __init__(self, held: int, experts: int, classes: int) -> None:
        self.seen = 0
        self.samples = torch.zeros(held, dtype=torch.float64)
        self.correct = torch.zeros(held, dtype=torch.float64)
        self.loss = torch.zeros(held, dtype=torch.float64)
        self.gate_by_label = torch.zeros(classes, experts, dtype=torch.float64)
        self.gate_entropy = torch.zeros(experts, dtype=torch.float64)
        self.labels = torch.zeros(classes, dtype=torch.float64)
        self.responsibility = torch.zeros(held, dtype=torch.float64)

    def add(self, routing: Routing, logits: torch.Tensor, y: torch.Tensor) -> None:
        if routing.samples is not None:
            logits, y = logits[routing.samples], y[routing.samples]
        answers, own = routing.expert_logits, routing.expert_logits is not None
        if answers is None:
            answers = logits[:, None].expand(-1, routing.slots.shape[1], -1)
        target = y.repeat_interleave(routing.slots.shape[1])
        loss = F.cross_entropy(answers.flatten(0, 1), target, reduction="none")
        hit = answers.flatten(0, 1).argmax(1) == target
        slots = routing.slots.flatten().cpu()
        self.seen += len(y)
        self.samples += torch.bincount(slots, minlength=len(self.samples))
        self.correct.index_add_(0, slots, hit.cpu().double())
        self.loss.index_add_(0, slots, loss.cpu().double())
        gate, labels = routing.gate_logits.softmax(1).cpu().double(), y.cpu()
        self.labels += torch.bincount(labels, minlength=len(self.labels))
        self.gate_by_label.index_add_(0, labels, gate)
        self.gate_entropy += torch.special.entr(gate).sum(0)
        # r_{i,e} ~ g_e(x_i) p_e(y_i | x_i), normalised over the experts that answered
        # sample i; in logs because p underflows. Inside an encoder p is nobody's own.
        prior = routing.held_probs.gather(1, routing.slots)
        joint = torch.full_like(routing.held_probs, -torch.inf)
        each = prior.log() - (loss.view_as(prior) if own else 0)
        joint.scatter_(1, routing.slots, each)
        self.responsibility += joint.softmax(1).sum(0).cpu().double()

    def result(self) -> dict[str, NDArray[np.generic]]:
        routed = self.samples.clamp_min(1)
        seen = max(1, self.seen)
        mean = self.gate_by_label.sum(0) / seen
        # I(X; Z) = H(Z) - H(Z | X), expert by expert; the same given the label.
        total = torch.special.entr(mean)
        given_label = self.gate_by_label / self.labels.clamp_min(1)[:, None]
        share = self.labels / seen
        label_entropy = share @ torch.special.entr(given_label)
        return {
            "samples": self.samples.long().numpy(),
            "accuracy": (self.correct / routed).numpy(),
            "loss": (self.loss / routed).numpy(),
            "gate_mass": mean.numpy(),
            "responsibility": (self.responsibility / seen).numpy(),
            "input_information": (total - self.gate_entropy / seen).numpy(),
            "label_information": (total - label_entropy).numpy(),
        }
