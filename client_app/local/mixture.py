"""APFL: two models at once, and the client answers with a mixture of them.

At every step, on the same batch, with v' = alpha v + (1 - alpha) w::

    w <- w - lr grad F_c(w)                                   (sent)
    v <- v - lr alpha grad F_c(v')                            (kept)

and at the first step of a round, where it is learnt,
alpha <- clip(alpha - lr <v - w, grad F_c(v')>, 0, 1). Kept are v and alpha; a client
that has none yet starts v from the w it receives.
"""

from copy import deepcopy
from math import isfinite

import numpy as np
import torch
from torch import nn

from client_app.local.given import Given, Trained, joined, put
from client_app.local_round import check_finite
from client_app.training import Objective
from common.moe import ModelSpec, MoEModel, Vector
from common.settings.training_settings import TrainingSettings
from common.steps import Steps
from common.wire import TrainOrder


def size(spec: ModelSpec, order: TrainOrder) -> int:
    """Return the values of v, and one for alpha."""
    return sum(spec.size(part) for part in order.shared_parts()) + 1


def recall(given: Given) -> None:
    """Make the model v' of the w received."""
    own, alpha = _own(given)
    mix(given.model, [*own.parameters()], given.model, alpha)


def train(given: Given) -> Trained:
    """Train w, and v beside it; the model ends as v'."""
    session, order, model = given.session, given.order, given.model
    own, alpha = _own(given)
    beside = OwnModel(
        model,
        own,
        alpha,
        adaptive=order.adaptive,
        objective=given.objective,
        settings=session.training,
    )
    result = given.fit(beside=beside)
    changes = given.changes()
    kept = beside.kept(order.shared_parts())
    mix(model, beside.v, model, beside.alpha)
    # Running statistics are of what was passed through it: the mixture.
    for mine, of_the_mixture in zip(model.buffers(), own.buffers(), strict=True):
        mine.copy_(of_the_mixture)
    check_finite(model, result.train_loss, session)
    return Trained(result=result, changes=changes, kept=kept, own=True)


class OwnModel:
    """Trains v on every batch that w is trained on.

    Parameters
    ----------
    model : MoEModel
        w.
    own : MoEModel
        With v in it; what its gradients are taken in.
    alpha : float
    adaptive : bool
    objective : Objective
    settings : TrainingSettings

    Attributes
    ----------
    v : list of Parameter
    alpha : float
    """

    def __init__(
        self,
        model: MoEModel,
        own: MoEModel,
        alpha: float,
        *,
        adaptive: bool,
        objective: Objective,
        settings: TrainingSettings,
    ) -> None:
        self.alpha = alpha
        self._model, self._own = model, own.train()
        self._objective, self._lr = objective, settings.lr
        self._smoothing = settings.label_smoothing
        self._learns = adaptive
        self.v = [
            nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad)
            for p in own.parameters()
        ]
        self._steps = Steps([p for p in self.v if p.requires_grad], settings)

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take one step of v, with w as it is before its own."""
        mix(self._own, self.v, self._model, self.alpha)
        self._own.zero_grad()
        routed = self._steps.forward(self._own, x)
        loss = self._objective.loss(routed, y, self._own, [], self._smoothing)
        self._steps.backward(loss)
        models = (self._own, self._model)
        triples = [*zip(*(m.parameters() for m in models), self.v, strict=True)]
        for p, _, v in triples:
            v.grad = p.grad
        self._steps.unscale()
        inner, alpha = 0.0, self.alpha
        for _, w, v in triples:
            if v.grad is not None:
                if self._learns:
                    inner += float(((v - w).detach() * v.grad).sum())
                v.grad.mul_(alpha)
        self._steps.step()
        if self._learns and isfinite(inner):  # else float16 has overflowed
            self.alpha = float(np.clip(alpha - self._lr * inner, 0, 1))
            self._learns = False

    def kept(self, parts: list[str]) -> Vector:
        """Return v, with the running statistics of v', and alpha."""
        with torch.no_grad():
            for p, v in zip(self._own.parameters(), self.v, strict=True):
                p.copy_(v)
        alpha = np.array([self.alpha], dtype=np.float32)
        return np.concatenate([joined(self._own, parts), alpha])


@torch.no_grad()
def mix(into: MoEModel, v: list[nn.Parameter], model: MoEModel, alpha: float) -> None:
    """Put alpha v + (1 - alpha) w into the parameters of a model."""
    for p, mine, shared in zip(into.parameters(), v, model.parameters(), strict=True):
        p.copy_(alpha * mine + (1 - alpha) * shared)


def _own(given: Given) -> tuple[MoEModel, float]:
    """Return a model with v in it, and alpha."""
    own = deepcopy(given.model)
    if given.kept is None:
        return own, given.order.mixing
    put(own, given.order.shared_parts(), given.kept[:-1])
    return own, float(np.clip(given.kept[-1], 0, 1))
