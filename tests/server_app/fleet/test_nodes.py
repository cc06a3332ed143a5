"""Nodes that are silent: who is waited for, and who is not."""

import time
from collections.abc import Iterable

import pytest
from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from server_app.fleet import nodes
from tests.server_app.fleet.town import Server, Town


class Waking(Town):
    """The first node answers the 50th pull, the second the 100th."""

    pulls = 0

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.pulls += 1
        awake = self.pulls // 50
        self.deaf = {node for node in self.here if node > awake}
        return super().pull_messages(message_ids)


@pytest.mark.usefixtures("hasty")
def test_a_silent_stranger_is_waited_for_once() -> None:
    town = Town(3)
    town.deaf = {1}
    server = Server(town)
    began = time.monotonic()
    assert server.ready(1, timeout=5) == ["client-1", "client-2"]
    # The first time everybody is waited for.
    assert (waited := time.monotonic()) >= began + 5
    for server_round in range(2, 30):
        assert server.ready(server_round) == ["client-1", "client-2"]
    assert time.monotonic() == waited
    assert server.fleet.refused == {"node 1": "does not answer"}
    town.deaf = set()
    assert server.ready(30) == ["client-1", "client-2", "client-0"]
    assert server.fleet.refused == {}


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("min_replies", "ready"), [(1, [0]), (2, [0, 1])])
def test_while_too_few_can_take_part_an_answer_is_waited_for_beyond_the_time(
    min_replies: int, ready: list[int]
) -> None:
    town = Waking(4)
    server = Server(town, min_replies=min_replies)
    assert server.ready(1, timeout=0.0) == [f"client-{each}" for each in ready]
    others = range(len(ready) + 1, 5)
    assert server.fleet.refused == {f"node {n}": "does not answer" for n in others}


@pytest.mark.usefixtures("hasty")
def test_a_newcomer_is_not_waited_for_and_taken_in_when_it_answers() -> None:
    town = Town(3)
    town.here, town.deaf = [1, 2], {3}
    server = Server(town)
    server.ready(1)
    town.here = [1, 2, 3]
    assert server.ready(2, timeout=60) == ["client-0", "client-1"]
    town.deaf = set()
    assert server.ready(3) == ["client-0", "client-1", "client-2"]


@pytest.mark.usefixtures("hasty")
def test_an_answer_that_comes_during_a_round_is_taken_in_after_it() -> None:
    town = Town(3)
    town.here, town.deaf = [1, 2], {3}
    server = Server(town)
    server.ready(1)
    town.here = [1, 2, 3]
    server.ready(2)
    town.deaf = set()
    [reply] = server.mailbox.exchange(
        town, [Message(RecordDict(), 1, "query", ttl=60)], 5
    )
    assert not reply.has_error()
    asked = len(town.asked)
    assert server.ready(3) == ["client-0", "client-1", "client-2"]
    assert len(town.asked) == asked


@pytest.mark.usefixtures("hasty")
def test_what_was_asked_of_virtual_nodes_is_always_waited_for() -> None:
    class Slow(Town):
        """Says nothing in the first few pulls."""

        pulls = 0

        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            self.pulls += 1
            return [] if self.pulls < 5 else super().pull_messages(message_ids)

    town = Slow(2, virtual=True)
    town.here = [1]
    server = Server(town)
    # However little time there is for the answers of devices.
    assert server.ready(1, timeout=0.0) == ["client-0"]
    town.here, town.pulls = [1, 2], 0
    assert server.ready(2, timeout=0.0) == ["client-0", "client-1"]


@pytest.mark.usefixtures("hasty")
def test_a_busy_machine_takes_no_virtual_client_out_of_the_first_round() -> None:
    server = Server(Waking(4, virtual=True))
    assert server.ready(1, timeout=0.0) == [f"client-{each}" for each in range(4)]
    assert server.fleet.refused == {}


@pytest.mark.usefixtures("hasty")
def test_nodes_registered_while_the_first_are_asked_are_in_the_first_round() -> None:
    class Filling(Town):
        """Has one node until that has answered."""

        def get_nodes(self) -> list[NodeInfo]:
            self.here = [1, 2, 3] if self.asked else [1]
            return super().get_nodes()

    server = Server(Filling(3, virtual=True))
    assert server.ready(1) == ["client-0", "client-1", "client-2"]


@pytest.mark.usefixtures("hasty")
def test_a_client_set_aside_that_does_not_answer_its_probe_delays_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town = Town(2)
    server = Server(town, set_aside_after=2)
    server.ready(1)
    for server_round in (1, 2):
        server.fleet.clients[1].note_answer(server_round, answered=False)
    town.deaf = {2}
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for server_round in range(3, 40):
        assert server.ready(server_round) == ["client-0"]
    assert not slept
    town.deaf = set()
    assert server.ready(40) == ["client-0", "client-1"]


@pytest.mark.usefixtures("hasty")
def test_who_leaves_while_others_are_waited_for_is_not_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "LOOK_SECONDS", -1.0)

    class Leaving(Town):
        """Node 1 answers and is gone at the second look; node 2 answers after that."""

        looks = 0

        def get_nodes(self) -> list[NodeInfo]:
            self.looks += 1
            if self.looks == 2:
                self.here, self.deaf = [2], set()
            return super().get_nodes()

    town = Leaving(2)
    town.deaf = {2}
    assert Server(town).ready(1) == ["client-1"]
    assert town.asked == [1, 2]
