"""Book-keeping of the round under way: who was asked what, and which replies count.

Every check that decides whether a reply may be merged is made here or in the wire's
:func:`common.wire.check_report`; what fails is noted with its reason and never merged.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Array, Message, MetricRecord
from numpy.typing import NDArray

from common import wire
from common.code_hash import code_hash
from common.metrics import coefficient_of_variation, layer_variations
from common.moe import Layout, Vector
from common.moe.pretrained import BASE
from common.wire import Packing, TrainOrder, WireError
from server_app.client import Client
from server_app.fleet import first_line
from server_app.frozen import base_array
from server_app.record import ClientRound, RoundRecord
from server_app.strategies.contract import Plan, Reply

SLACK_BYTES = 64 * 1024
"""What a reply may weigh beyond its arrays: names, headers and scalars."""

LOSSES = 3
"""How often a client is asked again in a round for what was lost on the way."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one participant is asked and sent.

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
    num_layers, positions : int
        Of its model; see :func:`common.wire.check_report`.
    sent : float
        When it was asked, on the monotonic clock.
    lost : int
        How often the order or its reply has been lost on the way.
    """

    client: Client
    order: TrainOrder
    layouts: Mapping[str, Layout]
    arrays: Mapping[str, Array]
    ttl: float
    budget: int
    num_layers: int = 1
    positions: int = 1
    sent: float = field(default_factory=time.monotonic)
    lost: int = 0

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
        """Return the message to the client."""
        left_out = self.order.cached_parts
        sent = {k: v for k, v in self.arrays.items() if k not in left_out}
        if self.order.base is not None and BASE not in left_out:
            sent[BASE] = base_array(self.order.base)
        return Message(
            wire.encode_order(self.order, sent),
            self.client.node_id,
            "train",
            group_id=str(self.order.server_round),
            ttl=self.ttl,
        )

    def in_full(self) -> "Asked":
        """Return the same with nothing left to the client's cache."""
        nothing: dict[str, list[str]] = {"cached_parts": [], "cached_versions": []}
        order = self.order.model_copy(update=nothing)
        return replace(self, order=order, sent=time.monotonic())

    def largest_reply(self) -> int:
        """Return the most bytes a correct reply can have."""
        parts = self.order.returned_parts()
        return sum(self.upload.nbytes(part) for part in parts) + SLACK_BYTES


class OpenRound:
    """One round from its plan to its record.

    Parameters
    ----------
    server_round : int
    plan : Plan
    max_update : float
        Largest RMS change of a part that is accepted.
    wanted : int
        Replies that are enough where more clients were asked; 0 waits for all.

    Attributes
    ----------
    replies : list of Reply
        Accepted so far, without deltas.
    rejected : dict of str to str
        Clients whose reply does not count, with the reason.
    load, samples : ndarray of int, shape (E,)
        Clients that held each expert and replied, and samples they routed to it.
    """

    def __init__(
        self, server_round: int, plan: Plan, max_update: float, wanted: int = 0
    ) -> None:
        experts = plan.assignment.shape[1]
        self.server_round = server_round
        self.plan = plan
        self.finished = False
        self.notes = list(plan.notes)
        self.replies: list[Reply] = []
        self.rejected: dict[str, str] = {}
        self.load: NDArray[np.int64] = np.zeros(experts, dtype=np.int64)
        self.samples: NDArray[np.int64] = np.zeros(experts, dtype=np.int64)
        self._max_update = max_update
        self._wanted = wanted
        self._started = time.perf_counter()
        self._waiting: dict[int, Asked] = {}
        self._stats: dict[int, ClientRound] = {}

    def ask(self, asked: Asked) -> Message:
        """Expect an answer of a client from now on; return the message to it."""
        message = asked.message()
        self._waiting[asked.client.node_id] = asked
        stats = self._stats.setdefault(
            asked.client.row,
            ClientRound(
                client=asked.client.name,
                experts=asked.order.experts,
                budget=asked.budget,
            ),
        )
        stats.bytes_down += wire.message_bytes(message)
        return message

    def ask_again(self, message: Message) -> Message | None:
        """Return a message that sends everything to a client that has lost its cache.

        None if this reply does not say so; a client can say so once a round.
        """
        asked = self._waiting.get(message.metadata.src_node_id)
        if asked is None or message.has_error() or not asked.order.cached_parts:
            return None
        bytes_up = wire.message_bytes(message)
        try:
            lacks = wire.decode_lacks(message.content)
        except WireError:
            return None
        if lacks is None or bytes_up > SLACK_BYTES:
            return None
        if (lacks.server_round, lacks.client) != (self.server_round, asked.client.name):
            return None
        asked.client.holds = []
        self._stats[asked.client.row].bytes_up += bytes_up
        missing = [part for part in asked.order.cached_parts if part in lacks.parts]
        self.notes.append(f"{asked.client.name} lacked {', '.join(missing)}")
        return self.ask(asked.in_full())

    def ask_anew(self, node: int) -> Message | None:
        """Return the order again for a device that lost it, or whose reply was lost.

        None if that has happened ``LOSSES`` times in this round. What it had in its
        cache it may have lost as well, and then says so.
        """
        asked = self._waiting.get(node)
        if asked is None or asked.lost == LOSSES:
            return None
        self.notes.append(f"{asked.client.name}: lost on the way, asked again")
        return self.ask(replace(asked, lost=asked.lost + 1, sent=time.monotonic()))

    def judge(self, message: Message) -> tuple[Client, Reply] | None:
        """Return who sent a reply and what it says; None if it does not count.

        A second reply of the same client, or one of another round, finds nobody asked.
        """
        node = message.metadata.src_node_id
        asked = self._waiting.get(node)
        if asked is None or message.metadata.group_id != str(self.server_round):
            self.rejected[f"node {node}"] = "was not asked"
            return None
        del self._waiting[node]
        name = asked.client.name
        if message.has_error():
            self.rejected[name] = first_line(message)
            return None
        bytes_up = wire.message_bytes(message)
        try:
            if bytes_up > asked.largest_reply():
                raise WireError(
                    f"reply of {bytes_up} bytes, at most {asked.largest_reply()}"
                )
            if (lacks := wire.decode_lacks(message.content)) is not None:
                asked.client.holds = []
                raise WireError(f"lacks {', '.join(lacks.parts)}")
            report, deltas = wire.decode_report(message.content, asked.upload)
            if report.code_hash != code_hash():
                raise WireError(f"runs other code ({report.code_hash})")
            if report.client != name:
                raise WireError(f"calls itself {report.client!r}")
            wire.check_report(
                asked.order,
                report,
                deltas,
                asked.sizes,
                num_layers=asked.num_layers,
                positions=asked.positions,
            )
            self._check_size_of_change(deltas)
        except WireError as error:
            self.rejected[name] = str(error)
            return None
        stats = self._stats[asked.client.row]
        stats.add_reply(report, bytes_up, time.monotonic() - asked.sent)
        asked.client.link.observe(
            stats.seconds_until_reply, stats.seconds, stats.bytes_down + bytes_up
        )
        row, order = asked.client.row, asked.order
        self.replies.append(Reply(client=row, order=order, report=report))
        return asked.client, Reply(
            client=row, order=order, report=report, deltas=deltas
        )

    def _check_size_of_change(self, deltas: Mapping[str, Vector]) -> None:
        for name, delta in deltas.items():
            # Finite values whose square leaves float32's range are far too large too.
            change = float(np.linalg.norm(delta)) / math.sqrt(max(1, delta.size))
            if change > self._max_update:
                raise WireError(
                    f"{name} changed by {change:g} (RMS), max-update is "
                    f"{self._max_update:g}"
                )

    def has_enough(self) -> bool:
        """Whether nobody need be waited for, though more were asked."""
        return 0 < self._wanted <= len(self.replies)

    def asked_rows(self) -> list[int]:
        """Rows of all clients that were sent an order."""
        return sorted(self._stats)

    def missing(self) -> list[Client]:
        """Clients that were asked and have not answered; noted as rejected."""
        absent = [asked.client for asked in self._waiting.values()]
        for client in absent:
            self.rejected.setdefault(client.name, "no reply in time")
        return absent

    def count(self) -> None:
        """Fix the replies in row order and count loads and samples."""
        self.replies.sort(key=lambda reply: reply.client)
        for reply in self.replies:
            self.load[reply.experts] += 1
            self.samples[reply.experts] += reply.samples

    def record(
        self,
        load_total: NDArray[np.int64],
        server_metrics: MetricRecord | None,
        late: int,
        num_layers: int = 1,
    ) -> RoundRecord:
        """Return the line of the run log."""
        solution = self.plan.solution
        server_global = None
        if server_metrics is not None and "server_global" in server_metrics:
            server_global = float(server_metrics["server_global"])  # type: ignore[arg-type]
        return RoundRecord(
            round=self.server_round,
            merged=self.finished,
            server_global=server_global,
            cv_round=coefficient_of_variation(self.load),
            cv_cumulative=coefficient_of_variation(load_total),
            cv_samples=coefficient_of_variation(self.samples),
            cv_layers=layer_variations(load_total, num_layers),
            load=self.load.tolist(),
            samples=self.samples.tolist(),
            seconds=time.perf_counter() - self._started,
            solver=None
            if solution is None
            else {
                "name": solution.solver,
                "status": solution.status,
                "seconds": solution.seconds,
                "objective": solution.objective,
                "bound": solution.bound,
            },
            notes=self.notes,
            rejected=self.rejected,
            late=late,
            ended=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            clients=[self._stats[row] for row in sorted(self._stats)],
        )
