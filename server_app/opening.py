"""How a round begins: who takes part, what the strategy plans, one message for each.

What happens to the replies is the round loop's business (``server_app.rounds``); what
may be merged is judged by the open round itself (``server_app.open_round``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, Message
from flwr.serverapp import Grid

from common import wire
from common.moe import Layout, Vector, expert_part
from common.moe.pretrained import BASE
from common.seeding import stream
from common.shape import ordered_spec
from common.wire import TrainOrder
from server_app.assignment import Units
from server_app.client import Client
from server_app.fleet import Fleet
from server_app.mailbox import Mailbox
from server_app.open_round import Asked, OpenRound
from server_app.strategies.contract import Plan, View

if TYPE_CHECKING:
    from server_app.strategies.base import ExpertStrategy

logger = logging.getLogger("flwr.expertfleet")

WAIT_SECONDS = 1.0


class RoundOpener:
    """Opens the rounds of one strategy.

    Parameters
    ----------
    strategy : ExpertStrategy
    fleet : Fleet
    mailbox : Mailbox
        Carries the queries to nodes that are new.

    Attributes
    ----------
    held : dict of int to list of int
        Experts each client, by row, was last assigned.
    """

    def __init__(
        self, strategy: ExpertStrategy, fleet: Fleet, mailbox: Mailbox
    ) -> None:
        self.held: dict[int, list[int]] = {}
        self._strategy = strategy
        self._settings = strategy.settings
        self._fleet = fleet
        self._mailbox = mailbox

    def ready(self, server_round: int, grid: Grid, needed: int) -> list[Client]:
        """Return the clients to plan with, once there are ``needed`` or time is up.

        Raises
        ------
        RuntimeError
            If no client can be reached within ``round-deadline``.
        """
        seconds = self._settings.rounds.round_deadline
        deadline = time.monotonic() + seconds
        while True:
            ready = self._fleet.refresh(grid, self._mailbox, server_round, seconds)
            over = time.monotonic() > deadline
            if len(ready) >= needed or (ready and (over or self._fleet.refused)):
                return ready
            if over or self._fleet.refused:
                raise RuntimeError(
                    "no client can take part: "
                    f"{self._fleet.refused or 'none is connected'}"
                )
            logger.info("waiting for clients")
            time.sleep(WAIT_SECONDS)

    def open(
        self, server_round: int, ready: list[Client], **order_fields: Any
    ) -> tuple[OpenRound, list[Message]]:
        """Plan a round; return it with its messages, one per participant.

        Parameters
        ----------
        ready : list of Client
            Who can be asked.
        **order_fields
            Fields of every order that depend on the run and not on the client.
        """
        clients, wanted = self._sample(server_round, ready)
        view = self._view(server_round, clients)
        plan = self._strategy.plan(view)
        self._check_layers(view, plan)
        limit = self._settings.merge.max_update
        opened = OpenRound(server_round, plan, limit, wanted)
        packer = _Packer(self._settings.wire.download_dtype)
        messages = []
        for position, client in enumerate(clients):
            experts = np.flatnonzero(plan.assignment[position]).tolist()
            if not experts:
                continue
            order = self._order(server_round, client, experts, plan, order_fields)
            parts = plan.content.get(client.row) or {
                name: self._strategy.model[name]
                for name in self._strategy.parts_for(experts)
            }
            spec = ordered_spec(self._strategy.spec, order)
            layouts = {name: spec.layout(name) for name in parts}
            arrays = packer.pack(parts, layouts)
            if self._settings.wire.expert_cache:
                order = self._without_cached(order, client, packer, arrays)
            if order.base is not None and order.base in client.holds:
                order = order.model_copy(
                    update={
                        "cached_parts": [*order.cached_parts, BASE],
                        "cached_versions": [*order.cached_versions, order.base],
                    }
                )
            asked = Asked(
                client=client,
                order=order,
                layouts=layouts,
                arrays=arrays,
                ttl=self._settings.rounds.round_deadline,
                budget=int(view.budgets[position]),
                num_layers=spec.num_layers,
                positions=spec.positions,
            )
            messages.append(opened.ask(asked))
            self.held[client.row] = experts
        return opened, messages

    def _check_layers(self, view: View, plan: Plan) -> None:
        lacking = np.argwhere(view.units.missing(plan.assignment))
        if len(lacking):
            position, layer = lacking[0].tolist()
            raise ValueError(
                f"strategy {self._strategy.name!r} gives client "
                f"{view.clients[position]} no expert of layer {layer + 1}: repair its "
                "plan with server_app.assignment.covering"
            )

    def _without_cached(
        self,
        order: TrainOrder,
        client: Client,
        packer: _Packer,
        arrays: Mapping[str, Array],
    ) -> TrainOrder:
        """Leave out what the client says it has, in the version of this round."""
        versions = {name: packer.version(array) for name, array in arrays.items()}
        cached = {k: v for k, v in versions.items() if v in client.holds}
        return order.model_copy(
            update={
                "cached_parts": [*cached],
                "cached_versions": [*cached.values()],
            }
        )

    def _sample(
        self, server_round: int, ready: list[Client]
    ) -> tuple[list[Client], int]:
        """Return the participants and how many replies are enough, 0 for all."""
        rounds = self._settings.rounds
        if not rounds.clients_per_round or rounds.clients_per_round >= len(ready):
            return ready, 0
        asked = ceil((1 + rounds.over_selection) * rounds.clients_per_round)
        wanted = rounds.clients_per_round if asked > rounds.clients_per_round else 0
        if asked >= len(ready):
            return ready, wanted
        rng = stream(self._settings.run.seed, "sample", server_round)
        rows = np.array([client.row for client in ready], dtype=np.int64)
        chosen = set(self._strategy.sample(rows, asked, rng).tolist())
        return [client for client in ready if client.row in chosen], wanted

    def _view(self, server_round: int, clients: list[Client]) -> View:
        spec = self._strategy.spec
        sizes = [spec.nbytes(expert_part(first)) for first in spec.one_of_each]
        units = Units.of(spec.num_experts, sizes)
        previous = np.zeros((len(clients), spec.num_units), dtype=np.bool_)
        for position, client in enumerate(clients):
            previous[position, self.held.get(client.row, [])] = True
        budgets = [self._fleet.budget(client) for client in clients]
        return View(
            server_round=server_round,
            clients=np.array([client.row for client in clients], dtype=np.int64),
            num_clients=len(self._fleet),
            budgets=np.array(budgets, dtype=np.int64) * units.set_size,
            units=units,
            previous=previous,
            availability=np.array([client.availability for client in clients]),
            profiles=tuple(client.profile for client in clients),
            rng=stream(self._settings.run.seed, "plan", server_round),
        )

    def _order(
        self,
        server_round: int,
        client: Client,
        experts: list[int],
        plan: Plan,
        common: Mapping[str, Any],
    ) -> TrainOrder:
        """Return a client's order; the plan's word goes before the run's."""
        spec = self._strategy.spec
        fields: dict[str, Any] = {
            "server_round": server_round,
            "experts": experts,
            "num_experts": spec.num_experts,
            "top_k": spec.top_k,
            "mixes": spec.mixes,
            "gate": self._strategy.gate,
            "base": spec.encoder.base or None if spec.encoder else None,
            "download_dtype": self._settings.wire.download_dtype,
            "upload_dtype": self._settings.wire.upload_dtype,
            "merged_round": client.merged_round,
        }
        special = plan.client_order.get(client.row, {})
        return TrainOrder(**{**fields, **common, **plan.order, **special})


class _Packer:
    """Packs every vector of a round once.

    Flower addresses payloads by content: one object for all who get the same vector.

    Parameters
    ----------
    dtype : {"float32", "float16", "int8"}
    """

    def __init__(self, dtype: wire.Dtype) -> None:
        self._dtype = dtype
        self._packed: dict[int, Array] = {}
        self._versions: dict[int, str] = {}

    def pack(
        self, parts: Mapping[str, Vector], layouts: Mapping[str, Layout]
    ) -> dict[str, Array]:
        """Return the packed parts of one client."""
        packing = wire.Packing(dtype=self._dtype, layouts=layouts)
        arrays = {}
        for name, vector in parts.items():
            key = id(vector)
            if key not in self._packed:
                self._packed[key] = wire.pack({name: vector}, packing)[name]
            arrays[name] = self._packed[key]
        return arrays

    def version(self, array: Array) -> str:
        """Return a packed array's version, hashed once."""
        if id(array) not in self._versions:
            self._versions[id(array)] = wire.version(array)
        return self._versions[id(array)]
