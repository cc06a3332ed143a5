"""Fed-MoE (Jiang et al., IJCAI 2025): compact clients, a mixture at the server.

docs/methods.md, 3, Algorithm 1; every round::

    A  m clients train their compact models M_j and send them
    B  P_y <- M(X)[y] on the reserved set D^r                        (Step 0)
       T times:  Q <- G(X);  W^r <- softmax_row(Q P_y^T)             (Eq. 3-5)
                 E_0 <- (1 - lambda) E_0 + lambda mean_j M_j         (Eq. 6)
                 E_i <- (1 - lambda) E_i + lambda (W^r M)_i          (Eq. 6)
                 G, alpha <- step on L^ce + beta L^ent               (Eq. 7-9)
    C  W^c <- softmax_col(cat(1 - alpha, alpha W)), W refreshed      (Eq. 11-12)
       M_j <- lambda M_j + (1 - lambda) (W^c^T E)_j                  (Eq. 13)

Each client gets its own M_j the next time it takes part. The paper leaves open, and we
choose:

- All experts start from the main expert's values, because averages of unlike starting
  points mean nothing. A client that never took part gets the main expert.
- Eq. 4 is summed over D^r, as the authors' published code does; averaged (option
  ``correlation``), its row softmax is flat and the experts never differ.
- The summed W is normalised over the experts before Eq. 11, as in that code.
- alpha is the sigmoid of a free number, which keeps it in (0, 1).
- Without a main expert (its Table 8) alpha is 1, and new clients still get E_0. More
  than one is no option: Eq. 6 would give them all the same values.
- A step on gate and alpha is ``gate-epochs`` passes of Adam over D^r in batches.

The authors' code for images also trains the experts themselves on D^r; Algorithm 1
does not, nor do we.

The server keeps M_j of every client that ever took part, and during a round the m
models that were sent: Stage B goes over them T times, a running sum cannot replace
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from torch import nn

from common.errors import SettingsError
from common.moe import GATE, Layout, ModelSpec, Vector
from common.settings import Settings
from server_app.strategies.base import (
    ExpertStrategy,
    Plan,
    Reply,
    StrategyOptions,
    View,
)
from server_app.strategies.fed_moe.correlation import (
    Matrix,
    client_weights,
    correlation,
    expert_weights,
    mixture,
    moved,
    server_weights,
)
from server_app.strategies.fed_moe.gate_training import ALPHA, GateTraining
from server_app.strategies.fed_moe.server_moe import (
    ServerMoE,
    compact_layout,
    compact_model,
    compact_names,
    compact_parts,
    join,
)
from server_app.strategies.server_training import require_reserved

ROUTED, CLIENT = "routed.", "client."


class FedMoE(ExpertStrategy):
    """Compact client models are fused into a server mixture by relevance."""

    name = "fed-moe"
    by_part = False
    ships = "one compact model, each client its own"
    private = "data only; the gate stays on the server"
    source = "Fed-MoE, Jiang et al., IJCAI 2025"
    use_when = (
        "devices hold one compact model each and the server has samples of its own"
    )
    cost = (
        "one compact model down and up; the server trains a mixture on "
        "reserved-samples and keeps a model for each client"
    )
    adds_up = False
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
            1, ge=1, description="passes over the reserved set per inner iteration"
        )
        synchronise: bool = Field(
            True, description="Stage C; without it a client goes on from its own model"
        )
        main_expert: bool = Field(
            True, description="whether E_0 takes part in answers and in Stage C"
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
        """Return the options.

        Raises
        ------
        SettingsError
            If an option is wrong, there are no reserved samples, or a merging rule is
            asked for that Eq. 6 has no place for.
        """
        require_reserved(settings, cls.name, "the server's gate is trained on them")
        if settings.merge.merging != "mean":
            raise SettingsError(
                f"merging = {settings.merge.merging!r} is not allowed with strategy "
                f"{cls.name!r}: it merges by correlation; leave merging at 'mean'"
            )
        return super().parse_options(settings)

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        super().__init__(settings, spec)
        self.clients: dict[int, Vector] = {}  # M_j of Eq. 13, by row
        self._sent: dict[int, Vector] = {}  # models of the round under way, by row
        main = self._main
        self.model |= {routed_part(k): main for k in range(self.options.experts)}
        self._gate = GateTraining(
            settings,
            self.spec,
            self.options.experts,
            lr=self.options.gate_lr,
            main_expert=self.options.main_expert,
        )
        self.model |= self._gate.vectors()

    # --- Stage A ----------------------------------------------------------------------

    def plan(self, view: View) -> Plan:
        """Send every participant its own model; the main expert to new ones."""
        known = [row for row in view.clients.tolist() if row in self.clients]
        return Plan(
            assignment=np.ones_like(view.previous),
            content={row: compact_parts(self.spec, self.clients[row]) for row in known},
        )

    def merge(self, reply: Reply) -> None:
        """Keep the model the client trained."""
        received = self.clients.get(reply.client, self._main)
        change = join(reply.deltas[part] for part in compact_names(self.spec))
        self._sent[reply.client] = received + change

    def finish(self) -> None:
        """Stages B and C over the models that came in; nothing without any."""
        sent = dict(sorted(self._sent.items()))  # whatever the order of arrival
        self.discard()
        if sent:
            self._gate.load(self.model)
            confidence = self._gate.confidence(sent.values())
            self._update_server(list(sent.values()), confidence)
            self._synchronise(sent, confidence)

    def discard(self) -> None:
        """Drop the models of the round under way."""
        super().discard()
        self._sent = {}

    # --- Stage B ----------------------------------------------------------------------

    def _update_server(self, models: list[Vector], confidence: Matrix) -> None:
        """Update experts, gate and alpha T times (Steps 1 to 4)."""
        rate = self.options.moving_rate
        mean = mixture([1 / len(models)] * len(models), models)
        for _ in range(self.options.iterations):
            weights = client_weights(self._correlation(confidence))
            self.model |= compact_parts(self.spec, moved(self._main, mean, rate))
            for k, row in enumerate(weights):
                part = routed_part(k)
                self.model[part] = moved(self.model[part], mixture(row, models), rate)
            self._gate.train(
                self._experts,
                beta=self.options.entropy_weight,
                epochs=self.options.gate_epochs,
            )
        self.model |= self._gate.vectors()

    def _correlation(self, confidence: Matrix) -> Matrix:
        """Return W of the gate as it is now, shape (K, m) (Eq. 3-4)."""
        return correlation(self._gate.gating(), confidence, self.options.correlation)

    # --- Stage C ----------------------------------------------------------------------

    def _synchronise(self, sent: Mapping[int, Vector], confidence: Matrix) -> None:
        """Mix every participant's next model from all experts (Eq. 11-13)."""
        if not self.options.synchronise:
            self.clients |= sent
            return
        w = self._correlation(confidence)
        if self.options.correlation == "sum":
            w = expert_weights(w)
        weights = server_weights(w, self._gate.alpha)
        experts, rate = self._experts, 1 - self.options.moving_rate
        for (row, model), column in zip(sent.items(), weights.T, strict=True):
            self.clients[row] = moved(model, mixture(column, experts), rate)

    # --- the server's model -----------------------------------------------------------

    @property
    def _main(self) -> Vector:
        return join(self.model[part] for part in compact_names(self.spec))

    @property
    def _experts(self) -> list[Vector]:
        """E_0 to E_K."""
        routed = [self.model[routed_part(k)] for k in range(self.options.experts)]
        return [self._main, *routed]

    def global_model(self) -> nn.Module:
        """Return Eq. 10: main expert and top-L routed experts."""
        main, *routed = (compact_model(self.spec, vector) for vector in self._experts)
        self._gate.load(self.model)
        # A copy: Stage B goes on with its own, here, wherever the predictor is taken.
        gate, top_l = deepcopy(self._gate.gate).cpu(), self.options.top_l
        return ServerMoE(main, routed, gate, self._gate.alpha, top_l)

    def layout(self, part: str) -> Layout:
        """Return name and shape of the tensors in one part of the global model."""
        if part in (GATE, ALPHA):
            return self._gate.layout(part)
        if part.startswith(ROUTED):
            return compact_layout(self.spec)
        return super().layout(part)

    def state(self) -> dict[str, Any]:
        """Return Adam's moments and the clients' models; the rest is in the model."""
        clients = {f"{CLIENT}{row}": model for row, model in self.clients.items()}
        return {**super().state(), **self._gate.state(), **clients}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        super().load_state(state)
        self._gate.load_state(state)
        self.clients = {
            int(name.removeprefix(CLIENT)): model
            for name, model in state.items()
            if name.startswith(CLIENT)
        }


def routed_part(k: int) -> str:
    """Return the part name of routed expert k, from 0."""
    return f"{ROUTED}{k}"
