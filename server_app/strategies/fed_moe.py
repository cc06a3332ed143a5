"""Fed-MoE (Jiang et al., IJCAI 2025): compact clients, a mixture at the server.

METHODS 3, Algorithm 1; every round::

    A  m clients train their compact models M_j and send them
    B  P_y <- M(X)[y] on the reserved set D^r                        (Step 0)
       T times:  Q <- G(X);  W^r <- softmax_row(Q P_y^T)             (Eq. 3-5)
                 E_0 <- (1 - lambda) E_0 + lambda mean_j M_j         (Eq. 6)
                 E_i <- (1 - lambda) E_i + lambda (W^r M)_i          (Eq. 6)
                 G, alpha <- step on L^ce + beta L^ent               (Eq. 7-9)
    C  W^c <- softmax_col(cat(1 - alpha, alpha W)), W refreshed      (Eq. 11-12)
       M_j <- lambda M_j + (1 - lambda) (W^c^T E)_j                  (Eq. 13)

Each client gets its own M_j the next time it takes part. The paper leaves open, and we
choose: all experts start from the main expert's values, because averages of unlike
starting points mean nothing; a client that never took part gets the main expert; alpha
is the sigmoid of a free number, which keeps it in (0, 1); the gate's step is
``gate-epochs`` passes of Adam over D^r. Eq. 4 is summed over D^r, as in the authors'
published code, see the option ``correlation``. That code also trains the experts
themselves on D^r; Algorithm 1 does not, nor do we.

The server keeps M_j of every client that ever took part, and during a round the m
models that were sent: Stage B goes over them T times, a running sum cannot replace
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from common.config import Settings
from common.moe import EXTRACTOR, GATE, Layout, ModelSpec, Vector, expert_part
from common.seeding import stream
from server_app.correlation import (
    Matrix,
    client_weights,
    correlation,
    expert_weights,
    mixture,
    moved,
    server_weights,
)
from server_app.server_moe import (
    ServerGate,
    ServerMoE,
    cut,
    gate_loss,
    join,
    joined_layout,
)
from server_app.server_training import (
    Adam,
    Tensors,
    batches,
    require_reserved,
    reserved_tensors,
)
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)

COMPACT = (EXTRACTOR, expert_part(0))
ALPHA, ROUTED, CLIENT = "alpha", "routed.", "client."
GATE_BATCH, BATCH = 32, 512


class FedMoE(ExpertStrategy):
    """Compact client models are fused into a server mixture by relevance."""

    name = "fed-moe"
    ships = "one compact model, each client its own"
    private = "data only; the gate stays on the server"
    source = "Fed-MoE, Jiang et al., IJCAI 2025"
    dense = True
    gate = "none"

    class Options(StrategyOptions):
        """Fed-MoE's own settings; defaults are the paper's unless said otherwise."""

        experts: int = Field(5, ge=1, description="K, routed experts of the server")
        iterations: int = Field(5, ge=1, description="T, inner iterations a round")
        top_l: int = Field(1, ge=1, description="L, routed experts at inference")
        moving_rate: float = Field(
            0.1, gt=0, lt=1, description="lambda of Eq. 6 and 13, 0 to 1 exclusive"
        )
        entropy_weight: float = Field(1e-3, ge=0, description="beta of Eq. 9")
        gate_lr: float = Field(
            1e-3, gt=0, description="Adam's rate for gate and alpha (paper: 1e-4)"
        )
        gate_epochs: int = Field(
            5, ge=1, description="passes over the reserved set per inner iteration"
        )
        correlation: Literal["sum", "mean"] = Field(
            "sum", description="Eq. 4 over the reserved set: summed or averaged"
        )

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.top_l > self.experts:
                raise ValueError(f"top-l is at most experts = {self.experts}")
            return self

    @classmethod
    def parse_options(cls, settings: Settings) -> StrategyOptions:
        """Return the options; raises SettingsError, also without reserved samples."""
        require_reserved(settings, cls.name, "the server's gate is trained on them")
        return super().parse_options(settings)

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.clients: dict[int, Vector] = {}  # M_j of Eq. 13, by row
        self._sent: dict[int, Vector] = {}  # models of the round under way, by row
        main = self._main
        self.model |= {routed_part(k): main for k in range(self.options.experts)}
        # Workplaces only: what they hold is loaded from ``model`` before it is used.
        self._compact = self.spec.build([0])
        self._gate = ServerGate(self.spec, self.options.experts, settings.run.seed)
        self._logit = nn.Parameter(torch.zeros(1))  # alpha starts at 0.5
        self._trained = [*self._gate.parameters(), self._logit]
        self._adam = Adam(sum(parameter.numel() for parameter in self._trained))
        self._keep_gate()

    # --- Stage A ----------------------------------------------------------------------

    def plan(self, view: View) -> Plan:
        """Send every participant its own model; the main expert to new ones."""
        known = [row for row in view.clients.tolist() if row in self.clients]
        return Plan(
            assignment=np.ones((len(view.clients), 1), dtype=np.bool_),
            content={row: self._parts(self.clients[row]) for row in known},
        )

    def merge(self, reply: Reply) -> None:
        """Keep the model the client trained."""
        received = self.clients.get(reply.client, self._main)
        change = join(reply.deltas[part] for part in COMPACT)
        self._sent[reply.client] = received + change

    def finish(self) -> None:
        """Stages B and C over the models that came in; nothing without any."""
        sent, self._sent = dict(sorted(self._sent.items())), {}
        if not sent:
            return
        self._load_gate()
        models = list(sent.values())
        confidence = self._confidence(models)
        self._update_server(models, confidence)
        self._synchronise(sent, confidence)

    # --- Stage B ----------------------------------------------------------------------

    def _confidence(self, models: list[Vector]) -> Matrix:
        """Step 0: P_y, what each model gives to the true labels, shape (n, m)."""
        true = self._reserved[1][:, None]
        columns = [self._answers(model).gather(1, true) for model in models]
        return torch.cat(columns, dim=1).double().numpy()

    def _update_server(self, models: list[Vector], confidence: Matrix) -> None:
        """Steps 1 to 4, T times."""
        rate = self.options.moving_rate
        mean = mixture([1 / len(models)] * len(models), models)
        for _ in range(self.options.iterations):
            weights = client_weights(self._correlation(confidence))
            self.model |= self._parts(moved(self._main, mean, rate))
            for k, row in enumerate(weights):
                part = routed_part(k)
                self.model[part] = moved(self.model[part], mixture(row, models), rate)
            self._train_gate()
        self._keep_gate()

    def _train_gate(self) -> None:
        """Step 4: Adam on gate and alpha; the experts stand still (Eq. 7-9)."""
        x, y = self._reserved
        main, *routed = (self._answers(expert) for expert in self._experts)
        members = torch.stack(routed, dim=1)
        rng = stream(self.settings.run.seed, "gate", self._adam.steps)
        self._gate.train()
        for batch in batches(len(y), GATE_BATCH, self.options.gate_epochs, rng):
            loss = gate_loss(
                self._gate(x[batch]),
                self._logit.sigmoid(),
                main[batch],
                members[batch],
                y[batch],
                self.options.entropy_weight,
            )
            gradients = torch.autograd.grad(loss, self._trained)
            self._adam.step(self._trained, gradients, self.options.gate_lr)

    # --- Stage C ----------------------------------------------------------------------

    def _synchronise(self, sent: Mapping[int, Vector], confidence: Matrix) -> None:
        """Mix every participant's next model from all experts (Eq. 11-13)."""
        w = self._correlation(confidence)
        if self.options.correlation == "sum":
            w = expert_weights(w)
        weights = server_weights(w, self.alpha)
        experts, rate = self._experts, 1 - self.options.moving_rate
        for (row, model), column in zip(sent.items(), weights.T, strict=True):
            self.clients[row] = moved(model, mixture(column, experts), rate)

    # --- the server's model -----------------------------------------------------------

    @property
    def alpha(self) -> float:
        """Weight of the routed experts, in (0, 1)."""
        return float(torch.from_numpy(self.model[ALPHA]).sigmoid())

    @property
    def _main(self) -> Vector:
        return join(self.model[part] for part in COMPACT)

    @property
    def _experts(self) -> list[Vector]:
        """E_0 to E_K."""
        routed = [self.model[routed_part(k)] for k in range(self.options.experts)]
        return [self._main, *routed]

    def _parts(self, vector: Vector) -> dict[str, Vector]:
        """Cut a compact model into the parts that travel."""
        sizes = [self.spec.size(part) for part in COMPACT]
        return dict(zip(COMPACT, cut(vector, sizes), strict=True))

    @cached_property
    def _reserved(self) -> Tensors:
        return reserved_tensors(self.settings)

    @torch.no_grad()
    def _answers(self, vector: Vector) -> torch.Tensor:
        """Class probabilities of one compact model on D^r, shape (n, C)."""
        self._compact.load(self._parts(vector))
        self._compact.eval()
        pieces = self._reserved[0].split(BATCH)
        return torch.cat([self._compact(x).logits.softmax(1) for x in pieces])

    def _correlation(self, confidence: Matrix) -> Matrix:
        """Step 2: W of the gate as it is now, shape (K, m)."""
        return correlation(self._gating(), confidence, self.options.correlation)

    @torch.no_grad()
    def _gating(self) -> Matrix:
        """Step 1: Q on D^r, shape (n, K) (Eq. 3)."""
        self._gate.eval()
        pieces = self._reserved[0].split(BATCH)
        return torch.cat([self._gate(x).softmax(1) for x in pieces]).double().numpy()

    def _load_gate(self) -> None:
        self._gate.load(self.model[GATE])
        self._logit.data = torch.from_numpy(self.model[ALPHA].copy())

    def _keep_gate(self) -> None:
        self.model[GATE] = self._gate.vector()
        self.model[ALPHA] = self._logit.detach().numpy().copy()

    def global_model(self) -> nn.Module:
        """Return Eq. 10: main expert and top-L routed experts."""
        models = []
        for vector in self._experts:
            model = self.spec.build([0])
            model.load(self._parts(vector))
            models.append(model)
        self._load_gate()
        main, *routed = models
        return ServerMoE(main, routed, self._gate, self.alpha, self.options.top_l)

    def layout(self, part: str) -> Layout:
        """Return name and shape of the tensors in one part of the global model."""
        if part == ALPHA:
            return (("logit", (1,)),)
        if part == GATE:
            return self._gate.layout()
        if part.startswith(ROUTED):
            return joined_layout({p: self.spec.layout(p) for p in COMPACT})
        return super().layout(part)

    def state(self) -> dict[str, Any]:
        """Return Adam's moments and the clients' models; the rest is in the model."""
        return {
            **super().state(),
            "gate_first": self._adam.first,
            "gate_second": self._adam.second,
            "gate_steps": self._adam.steps,
            **{f"{CLIENT}{row}": model for row, model in self.clients.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        self._adam.first, self._adam.second = state["gate_first"], state["gate_second"]
        self._adam.steps = int(state["gate_steps"])
        self.clients = {
            int(name.removeprefix(CLIENT)): model
            for name, model in state.items()
            if name.startswith(CLIENT)
        }


def routed_part(k: int) -> str:
    """Return the part name of routed expert k, from 0."""
    return f"{ROUTED}{k}"
