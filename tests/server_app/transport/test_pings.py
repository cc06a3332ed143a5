"""Messages that are lost on the way: who is asked again, when, and who is not."""

import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.server.superlink.fleet.vce.vce_api import _register_nodes
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.inline_grid import InlineGrid
from server_app.transport import mailbox, pings
from server_app.transport.mailbox import Mailbox
from server_app.transport.pings import PING, Watch


def order(node: int, ttl: float = 100.0) -> Message:
    return Message(RecordDict(), node, "train", ttl=ttl, group_id="4")


class SuperNodes(InlineGrid):
    """Nodes that work as SuperNodes do: on one message at a time, in order.

    Parameters
    ----------
    losses : dict of int to list of bool
        Which of the messages to a node are pings, pings among them; later ones arrive.
    delays : dict of int to list of int
        For how many looks a node works on each that arrives; later ones take none.
    activated : float
        When all nodes were activated, in seconds.
    """

    def __init__(
        self,
        losses: dict[int, list[bool]],
        delays: dict[int, list[int]],
        activated: float = 1.0,
    ) -> None:
        super().__init__(ClientApp(), 9, {})
        self.losses, self.delays = losses, delays
        self.activated = activated
        self.pushed: dict[int, list[Message]] = defaultdict(list)
        self.lost: list[Message] = []
        self.queues: dict[int, list[tuple[Message, int]]] = defaultdict(list)
        self.replies: dict[str, Message] = {}

    def get_nodes(self) -> list[NodeInfo]:
        when = datetime.fromtimestamp(self.activated, UTC).isoformat()
        return [
            NodeInfo(node_id=node, last_activated_at=when, heartbeat_interval=30)
            for node in self.get_node_ids()
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = list(messages)
        ids = super().push_messages(pushed)
        for message in pushed:
            node = message.metadata.dst_node_id
            self.pushed[node].append(message)
            if self.losses.get(node) and self.losses[node].pop(0):
                self.lost.append(message)
                continue
            delay = self.delays[node].pop(0) if self.delays.get(node) else 0
            self.queues[node].append((message, delay))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        for queue in self.queues.values():
            while queue:
                message, delay = queue.pop(0)
                if delay:
                    queue.insert(0, (message, delay - 1))
                    break
                reply = Message(RecordDict(), reply_to=message)
                self.replies[message.metadata.message_id] = reply
        return [self.replies.pop(i) for i in message_ids if i in self.replies]

    def orders(self, node: int) -> list[Message]:
        return [m for m in self.pushed[node] if m.metadata.message_type == "train"]

    def pings(self, node: int) -> list[Message]:
        return [m for m in self.pushed[node] if m.metadata.message_type == PING]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubts everything at once and all the time."""
    monkeypatch.setattr(pings, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(pings, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(pings, "BACK_OFF", 1)
    monkeypatch.setattr(mailbox, "POLL_SECONDS", 0.0)


def exchange(grid: SuperNodes, nodes: list[int], seconds: float) -> list[Message]:
    return list(Mailbox().exchange(grid, [order(n) for n in nodes], seconds, order))


@pytest.mark.usefixtures("impatient", "task_identity")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.lists(st.booleans(), max_size=6), st.lists(st.integers(0, 4), max_size=4)
        ),
        min_size=1,
        max_size=9,
    )
)
def test_every_node_is_asked_once_more_for_each_order_it_lost(
    ways: list[tuple[list[bool], list[int]]],
) -> None:
    nodes = range(1, len(ways) + 1)
    grid = SuperNodes(
        {node: list(losses) for node, (losses, _) in zip(nodes, ways, strict=True)},
        {node: list(delays) for node, (_, delays) in zip(nodes, ways, strict=True)},
    )
    replies = exchange(grid, list(nodes), 60)
    assert sorted(reply.metadata.src_node_id for reply in replies) == list(nodes)
    assert not any(reply.has_error() for reply in replies)
    for node in nodes:
        orders = grid.orders(node)
        assert len(orders) == 1 + sum(message in grid.lost for message in orders)


def nodes_of_a_simulation() -> list[NodeInfo]:
    """What Flower itself registers for `flwr run` without devices."""
    objects = ObjectStoreFactory()
    links = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), objects)
    numbers = _register_nodes(9, links)
    return [*links.state().get_node_info(node_ids=[*numbers])]


@pytest.mark.usefixtures("impatient", "task_identity")
def test_a_node_of_a_simulation_is_never_doubted() -> None:
    class Virtual(SuperNodes):
        def get_nodes(self) -> list[NodeInfo]:
            return virtual

    virtual = nodes_of_a_simulation()
    assert all(node.last_activated_at for node in virtual)
    for index, node in enumerate(virtual):
        node.node_id = index + 1
    grid = Virtual({1: [True]}, {})
    assert exchange(grid, [1], 0.05) == []
    assert len(grid.pushed[1]) == 1


@pytest.mark.usefixtures("impatient", "task_identity")
def test_what_comes_after_the_answer_to_a_ping_is_not_asked_for_again() -> None:
    class Chunks(SuperNodes):
        """The reply to an order is seen one pull after that to a ping."""

        held_back = False

        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            found = super().pull_messages(message_ids)
            if not self.held_back and len(found) == 2:
                self.held_back = True
                found.sort(key=lambda m: m.metadata.message_type == PING)
                reply, answer = found
                self.replies[reply.metadata.reply_to_message_id] = reply
                return [answer]
            return found

    grid = Chunks({}, {1: [1]})
    [reply] = exchange(grid, [1], 60)
    [sent] = grid.orders(1)
    assert grid.held_back
    assert reply.metadata.reply_to_message_id == sent.metadata.message_id


class Answering(InlineGrid):
    """Answers in the SuperLink's place that a message is gone, the first few times."""

    def __init__(self, times: int) -> None:
        super().__init__(ClientApp(), 9, {})
        self.times = times
        self.pushed: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        self.pushed.extend(messages)
        return super().push_messages(self.pushed[-1:])

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        if not self._pending.pop(next(iter(message_ids)), None):
            return []
        gone = Error(3, "not available") if len(self.pushed) <= self.times else None
        return [Message(gone or RecordDict(), reply_to=self.pushed[-1])]


def test_what_flower_no_longer_has_is_asked_for_again(task_identity: None) -> None:
    grid = Answering(1)
    [reply] = Mailbox().exchange(grid, [order(6)], 5, order)
    assert not reply.has_error() and len(grid.pushed) == 2


def test_what_nobody_asks_for_again_has_failed(task_identity: None) -> None:
    grid = Answering(1)
    [reply] = Mailbox().exchange(grid, [order(6)], 5)
    assert reply.error.reason == "not available" and len(grid.pushed) == 1


def test_what_has_expired_is_not_asked_for_again(task_identity: None) -> None:
    grid, expiring = Answering(1), order(6, ttl=0.01)
    time.sleep(0.02)
    [reply] = Mailbox().exchange(grid, [expiring], 5, order)
    assert reply.error.reason == "not available" and len(grid.pushed) == 1


class Clock:
    """Stands in for the module time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pings, "time", clock)
    return clock


def pinged_at(
    clock: Clock, grid: SuperNodes, message: Message, patience: float, seconds: int
) -> list[float]:
    """Return after how many seconds a node that says nothing is pinged."""
    message.metadata.__dict__["_created_at"] = clock.now
    message.metadata.__dict__["_message_id"] = "m"
    start, watch, times = clock.now, Watch(patience), []
    for _ in range(seconds):
        clock.now += 1
        before = len(grid.pushed[1])
        watch.look(grid, {"m": message})
        if len(grid.pushed[1]) > before:
            times.append(clock.now - start)
    assert sorted(watch.pings) == sorted(m.metadata.message_id for m in grid.pings(1))
    return times


def test_silence_is_asked_about_more_and_more_rarely(
    clock: Clock, task_identity: None
) -> None:
    grid = SuperNodes({}, {}, activated=1.0)
    # 30 s and four times as long each time, at looks of every 10 s.
    assert pinged_at(clock, grid, order(1, 3600), 0.0, 3600) == [30, 120, 480, 1920]
    # As long as it is told to be patient; not beyond what the message is worth.
    grid = SuperNodes({}, {}, activated=1.0)
    assert pinged_at(clock, grid, order(1, 300), 100.0, 600) == [100]


@pytest.mark.parametrize("ahead", [5.0, 900.0])
def test_a_node_that_came_back_is_asked_about_once(
    ahead: float, clock: Clock, task_identity: None
) -> None:
    # However far the SuperLink's clock is ahead.
    grid = SuperNodes({}, {}, activated=clock.now + ahead)
    assert pinged_at(clock, grid, order(1, 3600), 1000.0, 900) == [10]


def test_an_error_proves_nothing(clock: Clock, task_identity: None) -> None:
    grid, message = SuperNodes({}, {}), order(1)
    message.metadata.__dict__["_message_id"] = "m"
    for content, proven in ((Error(5, "away"), set()), (RecordDict(), {"m"})):
        clock.now = message.metadata.created_at
        watch = Watch()
        clock.now += 30
        watch.look(grid, {"m": message})
        reply = Message(content, reply_to=grid.pushed[1][-1])
        assert watch.take(reply) and not watch.take(reply)
        assert watch.proven() == proven and watch.proven() == set()
