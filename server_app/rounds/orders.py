"""What is sent: from a plan to one order per participant, with the parts it needs."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
from flwr.app import Array, Message

from common import wire
from common.moe import Layout, ModelSpec, Vector
from common.shape import ordered_spec
from common.wire import Packing, QueryReply, TrainOrder, WireError
from server_app.contract import Algorithm, Plan, View, flaw
from server_app.fleet.client import Client
from server_app.merging.bounds import most_samples
from server_app.run_error import RunError
from server_app.run_folder.base_file import base_piece

LOSSES = 3
"""How often a client is asked again in an exchange for what was lost on the way."""

Order = TypeVar("Order", bound=TrainOrder)


@dataclass(frozen=True, kw_only=True)
class SentOrder:
    """One participant of a round.

    Attributes
    ----------
    layouts : mapping of str to layout
        Of the parts its model is made of.
    arrays : mapping of str to Array
        The same parts, packed; those in its cache are not sent.
    ttl : float
        Seconds the order is worth answering.
    budget : int
        What the client may hold, as in ``View.budgets``.
    num_layers, positions, num_classes : int
        Of its model; see :func:`common.wire.check_report`.
    most_examples, most_held_out : int or None
        Samples to train on and held out that the client said it has; None where samples
        move between clients.
    most_counted : int or None
        Samples that it counts for at most, beside the others; None for any number.
    may_grow : bool
        Whether its data are its own, so that it may have more by now.
    sent_at : float
        When it was asked, on the monotonic clock.
    lost : int
        How often the order or its reply has been lost on the way.
    kind : {"train", "evaluate"}
        Type of the message.
    bytes_sent : int
        Of the message; 0 before there is one.
    moves : mapping of str to int
        How often each part had moved when it was made; see
        :class:`server_app.merging.means.PartMeans`.
    """

    client: Client
    order: TrainOrder
    layouts: Mapping[str, Layout]
    arrays: Mapping[str, Array]
    ttl: float
    budget: int
    num_layers: int = 1
    positions: int = 1
    num_classes: int = 0
    most_examples: int | None = None
    most_held_out: int | None = None
    most_counted: int | None = None
    may_grow: bool = False
    sent_at: float = field(default_factory=time.monotonic)
    lost: int = 0
    kind: Literal["train", "evaluate"] = "train"
    bytes_sent: int = 0
    moves: Mapping[str, int] = field(default_factory=dict)

    @property
    def server_round(self) -> int:
        """The round it belongs to."""
        return self.order.server_round

    @property
    def upload(self) -> Packing:
        """How the reply's deltas are packed."""
        return Packing(dtype=self.order.upload_dtype, layouts=self.layouts)

    @property
    def sizes(self) -> dict[str, int]:
        """Values in each part."""
        return {
            name: sum(math.prod(shape) for _, shape in layout)
            for name, layout in self.layouts.items()
        }

    def message(self) -> Message:
        """Return the message to the client: the order, or a piece of the base first."""
        client, base = self.client, self.order.base
        if base is None or client.has_base:
            left_out = self.order.cached_parts
            sent = {k: v for k, v in self.arrays.items() if k not in left_out}
            content, kind = wire.encode_order(self.order, sent), str(self.kind)
        else:
            content = wire.encode_piece(*base_piece(base, client.base_kept))
            kind = wire.PIECE_MESSAGE
        return Message(
            content,
            client.node_id,
            kind,
            group_id=str(self.order.server_round),
            ttl=self.ttl,
        )

    def nbytes(self) -> tuple[int, int]:
        """Return the bytes of what is sent, and the most of what comes back."""
        left_out = self.order.cached_parts
        sent = (len(v.data) for k, v in self.arrays.items() if k not in left_out)
        return sum(sent), self.largest_reply()

    def in_full(self) -> "SentOrder":
        """Return the same with nothing left to the client's cache."""
        nothing: dict[str, list[str]] = {"cached_parts": [], "cached_versions": []}
        order = self.order.model_copy(update=nothing)
        return replace(self, order=order, sent_at=time.monotonic())

    def after_loss(self) -> "SentOrder | None":
        """Return the same once more; None if it was lost ``LOSSES`` times already."""
        if self.lost == LOSSES:
            return None
        return replace(self, lost=self.lost + 1, sent_at=time.monotonic())

    def largest_reply(self) -> int:
        """Return the most bytes a correct reply can have."""
        parts = self.order.returned_parts()
        return sum(self.upload.nbytes(part) for part in parts) + self.largest_report()

    def largest_report(self) -> int:
        """Return the most bytes a correct reply has beside its vectors."""
        everyone = self.num_layers * self.order.num_experts
        parts = len(self.layouts)
        return wire.most_report_bytes(
            len(self.order.experts), everyone, parts, self.num_classes
        )


def orders_of(
    strategy: Algorithm,
    view: View,
    plan: Plan,
    clients: list[Client],
    told: Callable[[QueryReply], str],
    **common: Any,
) -> list[SentOrder]:
    """Return an order for each client that holds an expert.

    Parameters
    ----------
    clients : list of Client
        The participants, in the order of the plan's rows.
    told : Callable[[QueryReply], str]
        The task as a client is told it, "" for one that need not be.
    **common
        Fields of every order that depend on the run and not on the client.

    Raises
    ------
    RunError
        If the plan asks for what no order can say, or for parts of another shape.
    """
    settings, packer = strategy.settings, Packer(strategy.settings.wire.download_dtype)
    orders = []
    # The stress test of drift hands samples on from client to client.
    fixed = not settings.stress.drift
    counted = most_samples(
        [
            client.profile.num_examples
            for client, held in zip(clients, plan.assignment, strict=True)
            if held.any()
        ],
        settings.merge.max_weight,
    )
    moves = dict(strategy.sums.moves)
    for position, client in enumerate(clients):
        profile = client.profile
        experts = np.flatnonzero(plan.assignment[position]).tolist()
        if not experts:
            continue
        fields = {**common, "task": told(profile)}
        order = _order(strategy, view.server_round, client, experts, plan, fields)
        parts: Mapping[str, Any] = plan.content.get(client.row) or {
            name: strategy.model.get(name) for name in strategy.parts_for(experts)
        }
        spec = ordered_spec(strategy.spec, order)
        if wrong := _misfit(order, spec, parts):
            raise _refused(strategy, view.server_round, wrong)
        layouts = {name: spec.layout(name) for name in parts}
        arrays = packer.pack(parts, layouts)
        versions = {}
        if settings.wire.expert_cache:
            versions = {name: packer.version(array) for name, array in arrays.items()}
        orders.append(
            SentOrder(
                client=client,
                order=without_cached(order, client, versions),
                layouts=layouts,
                arrays=arrays,
                ttl=settings.rounds.patience,
                budget=int(view.budgets[position]),
                num_layers=spec.num_layers,
                positions=spec.positions,
                num_classes=spec.num_classes,
                most_examples=profile.num_examples if fixed else None,
                most_held_out=profile.held_out if fixed else None,
                most_counted=counted,
                may_grow=profile.num_partitions <= 1,
                moves=moves,
            )
        )
    return orders


def _order(
    strategy: Algorithm,
    server_round: int,
    client: Client,
    experts: list[int],
    plan: Plan,
    common: Mapping[str, Any],
) -> TrainOrder:
    """Return a client's order; the plan's word goes before the run's."""
    spec, packing = strategy.spec, strategy.settings.wire
    skew = strategy.settings.skew
    fields: dict[str, Any] = {
        "server_round": server_round,
        "experts": experts,
        "num_experts": spec.num_experts,
        "top_k": spec.top_k,
        "mixes": spec.mixes,
        "gate": strategy.gate,
        "base": spec.base or None,
        "download_dtype": packing.download_dtype,
        "upload_dtype": packing.upload_dtype,
        "merged_round": client.merged_round,
        "keep_share": skew.client_keep,
        "label_prior": skew.label_prior,
        "calibration": skew.loss_calibration,
        "private_parts": strategy.private_parts,
        **asdict(strategy.method),
    }
    special = plan.client_order.get(client.row, {})
    try:
        return TrainOrder(**{**fields, **common, **plan.order, **special})
    except WireError as error:
        raise _refused(strategy, server_round, str(error)) from None


def _misfit(order: TrainOrder, spec: ModelSpec, parts: Mapping[str, object]) -> str:
    """Return why no model of this shape can be made of these parts; "" if one can."""
    known = order.parts_of_all_models(spec.part_names())
    for name, vector in parts.items():
        if name not in known:
            return f"the client's model has no part {name!r}"
        if wrong := flaw(vector, spec.size(name)):
            return f"part {name} {wrong}"
    return ""


def _refused(strategy: Algorithm, server_round: int, why: str) -> RunError:
    return RunError(
        f"round {server_round}: strategy {strategy.name!r} plans what cannot be sent: "
        f"{why}"
    )


def without_cached(order: Order, client: Client, versions: Mapping[str, str]) -> Order:
    """Leave out what the client says it has, in the version of this round."""
    cached = {name: each for name, each in versions.items() if each in client.holds}
    if not cached:
        return order
    return order.model_copy(
        update={"cached_parts": [*cached], "cached_versions": [*cached.values()]}
    )


def largest_reply(spec: ModelSpec) -> int:
    """Return the most bytes of any reply to an order: of all parts, not encoded."""
    parts, experts = spec.part_names(), spec.num_units
    vectors = sum(spec.nbytes(part) for part in parts)
    scalars = wire.most_report_bytes(experts, experts, len(parts), spec.num_classes)
    return vectors + scalars


class Packer:
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
