"""Fed-MoE's gate and alpha, trained on the reserved set.

Eq. 3 and 7-9 of docs/methods.md, 3. Everything of Stage B that runs networks is here.
The modules are workplaces: what they hold is loaded from the global model before it is
used, so that the model alone, with Adam's moments, is the state.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn

from common.cost import evaluation_batch
from common.moe import (
    GATE,
    Layout,
    ModelSpec,
    Vector,
    mean_entropy,
    pack,
    unpack_into,
)
from common.moe.vectors import layout_of
from common.seeding import stream
from common.settings import Settings
from common.shape import device_of
from common.steps import Steps
from server_app.strategies.fed_moe.correlation import Matrix
from server_app.strategies.fed_moe.server_moe import ServerGate, compact_parts
from server_app.strategies.server_training import Tensors, batches, reserved_tensors

ALPHA = "alpha"
TRAIN_BATCH = 32


def gate_loss(
    logits: torch.Tensor,
    alpha: torch.Tensor,
    main: torch.Tensor,
    routed: torch.Tensor,
    y: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Return L^ce + beta L^ent, the joint loss of gate and alpha (Eq. 7-9).

    Parameters
    ----------
    logits : Tensor, shape (B, K)
        The gate's.
    alpha : Tensor, scalar
    main, routed : Tensor, shapes (B, C) and (B, K, C)
        Class probabilities of the main and of every routed expert.
    y : Tensor of int, shape (B,)
    beta : float
        Weight of the gating entropy.
    """
    gates = logits.softmax(1)
    mixed = torch.einsum("bk,bkc->bc", gates, routed)
    answer = (1 - alpha) * main + alpha * mixed  # Eq. 1
    true = answer.gather(1, y[:, None]).clamp_min(torch.finfo(answer.dtype).tiny)
    return -true.log().mean() + beta * mean_entropy(gates)


class GateTraining:
    """Gate and alpha with their optimiser, and the reserved set they learn from.

    Parameters
    ----------
    settings : Settings
        Names the data set, the reserved samples and the seed.
    spec : ModelSpec
        Shape of the compact model.
    experts : int
        Routed experts K.
    lr : float
        Adam's rate.
    main_expert : bool
        Whether alpha is learnt, from 0.5 on; else it is 1.
    """

    def __init__(
        self,
        settings: Settings,
        spec: ModelSpec,
        experts: int,
        *,
        lr: float,
        main_expert: bool,
    ) -> None:
        self._settings = settings
        self._spec = spec
        self._device = device_of(settings)
        self._compact = spec.build(spec.one_of_each).to(self._device)
        self.gate = ServerGate(spec, experts, settings.run.seed).to(self._device)
        # The sigmoid of infinity is 1, and its gradient 0: alpha stays there.
        logit = torch.full((1,), 0.0 if main_expert else torch.inf, device=self._device)
        self._logit = nn.Parameter(logit)
        self._adam = torch.optim.Adam([*self.gate.parameters(), self._logit], lr=lr)
        self._steps = 0

    @property
    def alpha(self) -> float:
        """Weight of the routed experts, in (0, 1]."""
        return float(self._logit.detach().sigmoid())

    @cached_property
    def _reserved(self) -> Tensors:
        return reserved_tensors(self._settings)

    def confidence(self, models: Iterable[Vector]) -> Matrix:
        """Return P_y, what each model gives to the true labels, shape (n, m)."""
        true = self._reserved[1][:, None]
        columns = [self._answers(model).gather(1, true) for model in models]
        return torch.cat(columns, dim=1).cpu().double().numpy()

    @torch.no_grad()
    def gating(self) -> Matrix:
        """Return Q on the reserved set, shape (n, K) (Eq. 3)."""
        self.gate.eval()
        pieces = self._reserved[0].split(evaluation_batch(self._spec))
        gates = torch.cat([self.gate(x).softmax(1) for x in pieces])
        return gates.cpu().double().numpy()

    def train(self, experts: Iterable[Vector], *, beta: float, epochs: int) -> None:
        """Train gate and alpha; the experts stand still (Eq. 7-9).

        Parameters
        ----------
        experts : iterable of vector
            E_0 to E_K.
        beta : float
            Weight of the gating entropy.
        epochs : int
            Passes over the reserved set.
        """
        x, y = self._reserved
        main, *rest = (self._answers(expert) for expert in experts)
        routed = torch.stack(rest, dim=1)
        rng = stream(self._settings.run.seed, "gate", self._steps)
        learnt = [*self.gate.parameters(), self._logit]
        steps = Steps(learnt, self._settings.training, self._adam)
        self.gate.train()
        for batch in batches(len(y), TRAIN_BATCH, epochs, rng, self.gate):
            logits, alpha = self.gate(x[batch]), self._logit.sigmoid()
            loss = gate_loss(logits, alpha, main[batch], routed[batch], y[batch], beta)
            steps.take(loss)
            self._steps += 1

    @torch.no_grad()
    def _answers(self, vector: Vector) -> torch.Tensor:
        """Return one compact model's class probabilities on D^r, shape (n, C)."""
        self._compact.load(compact_parts(self._spec, vector))
        self._compact.eval()
        pieces = self._reserved[0].split(evaluation_batch(self._spec))
        return torch.cat([self._compact(x).logits.softmax(1) for x in pieces])

    # --- gate and alpha as parts of the global model ----------------------------------

    def vectors(self) -> dict[str, Vector]:
        """Return gate and alpha as parts."""
        return {GATE: pack(self.gate), ALPHA: self._logit.detach().cpu().numpy().copy()}

    def load(self, model: Mapping[str, Vector]) -> None:
        """Take gate and alpha from the global model."""
        unpack_into(self.gate, model[GATE], GATE)
        self._logit.data = torch.from_numpy(model[ALPHA].copy()).to(self._device)

    def layout(self, part: str) -> Layout:
        """Return name and shape of the tensors in ``gate`` or ``alpha``."""
        return layout_of(self.gate) if part == GATE else (("logit", (1,)),)

    def state(self) -> dict[str, Any]:
        """Return Adam's steps and moments, by the number of the parameter."""
        moments = {
            str(number): {
                name: value.cpu().numpy().copy() for name, value in of_one.items()
            }
            for number, of_one in self._adam.state_dict()["state"].items()
        }
        return {"gate_steps": self._steps, "gate_moments": moments}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._steps = int(state["gate_steps"])
        moments = {
            int(number): {name: torch.tensor(value) for name, value in of_one.items()}
            for number, of_one in state["gate_moments"].items()
        }
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})
