"""``fleet``: the server's predictor on what all devices hold out, where it has no data.

After a round the whole predictor goes to every client that can hold it, and each
answers with counts of its own held-out samples. Whole numbers add up exactly, so the
sum is what one test set of all these samples would give. Devices are sent parts as they
are for training: with ``download-dtype`` int8, what is measured is that.
"""

from collections.abc import Callable
from typing import Any

from flwr.app import Array, Message
from flwr.serverapp import Grid

from common import wire
from common.class_counts import ClassCounts, summed
from common.moe.described import Description, describe
from common.shape import ordered_spec
from common.wire import MeasureOrder, WireError
from server_app.contract import Algorithm
from server_app.fleet.client import Client
from server_app.fleet.fleet import Fleet
from server_app.fleet.reasons import grouped
from server_app.rounds.asking_again import asked_again
from server_app.rounds.orders import Packer, SentOrder
from server_app.rounds.round import Round
from server_app.transport.mailbox import Mailbox

Counted = tuple[ClassCounts | None, list[str], int]
"""Counts of all devices together, their names, and the bytes to them and back."""

NOBODY = "nobody who can hold all experts is there and free"


class FleetEvaluation:
    """Asks devices to measure the predictor of one run.

    Parameters
    ----------
    strategy : Algorithm
        Whose ``global_model`` is measured.
    fleet : Fleet
    mailbox : Mailbox
    """

    def __init__(self, strategy: Algorithm, fleet: Fleet, mailbox: Mailbox) -> None:
        self._strategy = strategy
        self._fleet = fleet
        self._mailbox = mailbox
        self._told: set[str] = set()

    def __call__(
        self, grid: Grid, current: Round, run_name: str, timeout: float
    ) -> Counted:
        """Return what devices counted of the model that a round has produced.

        A device that does not answer in time, or not as it should, is noted and left
        out.

        Parameters
        ----------
        grid : Grid
        current : Round
            Finished; who has not answered in it yet is not asked.
        run_name : str
        timeout : float
            Seconds that answers are waited for.
        """
        strategy, server_round = self._strategy, current.server_round
        if (predictor := strategy.global_model()) is None:
            return None, [], 0  # which the first round has said
        described = describe(predictor)
        if described is None or not self._fits(described):
            kind = f"the predictor of strategy {strategy.name!r} is one of its own"
            return self._nothing(current, f"{kind}, which devices cannot build")
        silent = current.silent()
        ready, able = self._fleet.to_measure(server_round)
        clients = [client for client in able if client.row not in silent]
        if not clients:
            why = "no device can hold all experts"
            return self._nothing(current, why if ready and not able else NOBODY)
        orders = self._orders(described, clients, server_round, run_name, timeout)
        asked = _Asked(orders, self._read)
        messages = asked.messages()
        replies = self._mailbox.exchange(grid, messages, timeout, asked.again)
        for reply in replies:
            if (again := asked.take(reply)) is not None:
                messages.append(again)
        current.notes += [
            f"fleet is without {line}" for line in grouped(asked.missing())
        ]
        names = [client.name for client in clients]
        return summed(asked.counts.values()), names, asked.nbytes

    def _nothing(self, current: Round, why: str) -> Counted:
        """Say once why nothing is measured."""
        if why not in self._told:
            self._told.add(why)
            current.notes.append(f"fleet is not measured: {why}")
        return None, [], 0

    def _order(self, described: Description, **fields: Any) -> MeasureOrder:
        spec, packing = described.model.spec, self._strategy.settings.wire
        return MeasureOrder(
            **fields,
            experts=[*described.model.held],
            num_experts=spec.num_experts,
            top_k=spec.top_k,
            gate="shared" if described.kind == "gate" else "none",
            width=spec.width,
            common_gate=spec.common_gate,
            mixes=spec.mixes,
            base=self._strategy.spec.base or None,
            download_dtype=packing.download_dtype,
            predictor=described.kind,
            weights=described.weights,
            server_gate=described.server_gate,
        )

    def _fits(self, described: Description) -> bool:
        """Whether a device would build the same model from what it is told."""
        order = self._order(described, run="run", server_round=0)
        return ordered_spec(self._strategy.spec, order) == described.model.spec

    def _orders(
        self,
        described: Description,
        clients: list[Client],
        server_round: int,
        run_name: str,
        timeout: float,
    ) -> list[SentOrder]:
        parts, spec = described.vectors(), described.model.spec
        layouts = {name: spec.layout(name) for name in parts}
        packer = Packer(self._strategy.settings.wire.download_dtype)
        arrays: dict[str, Array] = packer.pack(parts, layouts)
        orders = []
        for client in clients:
            order = self._order(
                described,
                run=run_name,
                server_round=server_round,
                task=self._fleet.agreement.told(client.profile),
            )
            orders.append(
                SentOrder(
                    client=client,
                    order=order,
                    layouts=layouts,
                    arrays=arrays,
                    ttl=timeout,
                    budget=len(order.experts),
                    num_classes=spec.num_classes,
                    kind="evaluate",
                )
            )
        return orders

    def _read(self, sent: SentOrder, message: Message) -> ClassCounts:
        """Return the counts of a reply; raises WireError if it does not count."""
        classes = self._strategy.spec.num_classes
        if message.has_error():
            raise WireError(wire.error_of(message))
        size, most = wire.message_bytes(message), wire.most_measure_bytes(classes)
        if size > most:
            raise WireError(f"reply of {size} bytes, at most {most}")
        report = wire.decode_measure_report(message.content)
        client, profile = sent.client, sent.client.profile
        if report.client != client.name:
            raise WireError(f"calls itself {report.client!r}")
        if report.code_hash != profile.code_hash:
            raise WireError(f"runs other code ({report.code_hash}) than it joined with")
        private = self._strategy.settings.data.private_counts
        counts = wire.measured_counts(
            report, sent.order.server_round, classes, private=private
        )
        if counts.total > profile.held_out:
            client.claim(more=True)
            raise WireError(
                f"counts of {counts.total} samples, but it said that it holds out "
                f"{profile.held_out}: it is asked again"
            )
        return counts


class _Asked:
    """Who was asked in one evaluation, and what came of it.

    Attributes
    ----------
    counts : dict of int to ClassCounts
        By node.
    nbytes : int
        Of all messages both ways.
    """

    def __init__(
        self,
        orders: list[SentOrder],
        read: Callable[[SentOrder, Message], ClassCounts],
    ) -> None:
        self.counts: dict[int, ClassCounts] = {}
        self.nbytes = 0
        self._read = read
        self._waiting = {sent.client.node_id: sent for sent in orders}
        self._failed: dict[str, str] = {}

    def messages(self) -> list[Message]:
        """Return the message to each of them."""
        return [self._send(sent) for sent in self._waiting.values()]

    def _send(self, sent: SentOrder) -> Message:
        self._waiting[sent.client.node_id] = sent
        message = sent.message()
        self.nbytes += wire.message_bytes(message)
        return message

    def again(self, node: int) -> Message | None:
        """Return the order again for a device that lost it, a few times."""
        sent = self._waiting.get(node)
        if sent is None or (again := sent.after_loss()) is None:
            return None
        return self._send(again)

    def take(self, reply: Message) -> Message | None:
        """Take in a reply; return what a device is sent that lacks its base."""
        node = reply.metadata.src_node_id
        sent = self._waiting.get(node)
        if sent is None:
            return None
        self.nbytes += wire.message_bytes(reply)
        if wire.asks_for_more(reply) and (again := asked_again(reply, sent)):
            return self._send(again[0])
        del self._waiting[node]
        try:
            self.counts[node] = self._read(sent, reply)
        except WireError as error:
            self._failed[sent.client.name] = str(error)
        return None

    def missing(self) -> dict[str, str]:
        """Return who was asked and is not counted, with the reason."""
        silent = {s.client.name: "no reply in time" for s in self._waiting.values()}
        return {**self._failed, **silent}
