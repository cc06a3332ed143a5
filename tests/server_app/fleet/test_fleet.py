"""The registry of clients: back-off, probing, restarts, budgets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo

from common import wire
from common.code_hash import code_hash
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.wire import QueryReply, TrainReport
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.client import Client
from server_app.fleet.fleet import Fleet
from server_app.transport.mailbox import Mailbox
from tests.server_app.fleet.town import SPEC, digest_of


def profile_of(client: str, **changes: Any) -> QueryReply:
    fields: dict[str, Any] = {
        "client": client,
        "partition_id": int(client.rsplit("-", 1)[1]),
        "num_partitions": 3,
        "num_examples": 10,
        "code_hash": code_hash(),
        "partition_hash": "p",
    }
    return QueryReply(**{**fields, **changes})


class Devices:
    """Clients that answer queries; each can be made to fail or to change."""

    def __init__(self) -> None:
        self.app = ClientApp()
        self.queries = 0
        self.broken: set[int] = set()
        self.changes: dict[str, Any] = {}

        @self.app.query()
        def query(message: Message, context: Context) -> Message:
            self.queries += 1
            partition = int(context.node_config["partition-id"])
            if partition in self.broken:
                raise OSError("out of order")
            said = {"task_hash": digest_of(message), **self.changes}
            profile = profile_of(f"client-{partition}", **said)
            return Message(wire.encode_query_reply(profile), reply_to=message)


@pytest.fixture
def devices() -> Devices:
    return Devices()


def fleet_of(**config: Any) -> Fleet:
    settings = Settings.from_run_config(config)
    return Fleet(settings, DeviceBudget(settings, SPEC, largest=8))


def refresh(fleet: Fleet, grid: InlineGrid, server_round: int) -> list[str]:
    mailbox = Mailbox()
    ready = fleet.refresh(grid, mailbox, server_round, timeout=5)
    return [client.name for client in ready]


def test_clients_are_asked_once_and_sorted_by_partition(devices: Devices) -> None:
    fleet, grid = fleet_of(), InlineGrid(devices.app, 12, {})
    names = [f"client-{i}" for i in range(12)]
    assert refresh(fleet, grid, 1) == names
    assert refresh(fleet, grid, 2) == names
    assert devices.queries == 12


def test_other_code_is_refused_with_the_reason(devices: Devices) -> None:
    devices.changes = {"code_hash": "0" * 16}
    fleet = fleet_of()
    assert refresh(fleet, InlineGrid(devices.app, 2, {}), 1) == []
    assert "other code" in fleet.refused["client-0"]


class Registered(InlineGrid):
    """A grid that knows under which name the key of each node is registered."""

    names: Mapping[int, str]

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=i, name=self.names[i]) for i in self.get_node_ids()]


def test_a_device_cannot_pass_for_another(devices: Devices) -> None:
    fleet, grid = fleet_of(), Registered(devices.app, 3, {})
    # The second calls itself otherwise; the key of the third has no name.
    grid.names = {1: "client-0", 2: "pi", 3: ""}
    assert refresh(fleet, grid, 1) == ["client-0", "client-2"]
    assert fleet.refused == {
        "pi": "it calls itself 'client-1' (name in its node configuration), "
        "but its key is registered as 'pi'"
    }

    grid.names = {**grid.names, 2: "client-1"}
    assert refresh(fleet, grid, 2) == ["client-0", "client-2", "client-1"]


def test_a_broken_client_is_asked_again_next_round(devices: Devices) -> None:
    fleet, grid = fleet_of(), InlineGrid(devices.app, 2, {})
    devices.broken = {1}
    assert refresh(fleet, grid, 1) == ["client-0"]
    assert "out of order" in fleet.refused["node 2"]
    devices.broken = set()
    assert refresh(fleet, grid, 2) == ["client-0", "client-1"]


def test_pauses_double_with_failures_in_a_row() -> None:
    client = Client(row=0, name="c-0", node_id=1, profile=profile_of("c-0"), tier=2)
    pauses = []
    for _ in range(6):
        client.note_answer(10, answered=False)
        pauses.append(client.rests_until - 11)
    assert pauses == [0, 1, 3, 7, 8, 8]
    client.note_answer(30, answered=True)
    assert (client.failures, client.rests_until) == (0, 31)


def test_after_repeated_failure_a_client_is_probed_before_it_is_trusted(
    devices: Devices,
) -> None:
    fleet, grid = fleet_of(**{"set-aside-after": 2}), InlineGrid(devices.app, 2, {})
    refresh(fleet, grid, 1)
    for server_round in (1, 2):
        fleet.clients[1].note_answer(server_round, answered=False)
    devices.broken, devices.queries = {1}, 0
    assert refresh(fleet, grid, 3) == ["client-0"]
    assert devices.queries == 0, "it rests"
    assert refresh(fleet, grid, 4) == ["client-0"]
    assert devices.queries == 1, "it is probed and does not answer"
    devices.broken = set()
    later = fleet.clients[1].rests_until
    assert later > 5
    assert refresh(fleet, grid, later) == ["client-0", "client-1"]


def test_a_restarted_device_keeps_its_row_and_history(devices: Devices) -> None:
    fleet, grid = fleet_of(), InlineGrid(devices.app, 2, {})
    refresh(fleet, grid, 1)
    fleet.clients[0].note_answer(1, answered=False)
    context = grid.contexts.pop(1)
    assert refresh(fleet, grid, 2) == ["client-1"]
    context.node_id = 77
    grid.contexts[77] = context
    assert refresh(fleet, grid, 3) == ["client-0", "client-1"]
    assert fleet.clients[0].node_id == 77
    assert fleet.clients[0].failures == 1


def test_a_newcomer_is_appended_with_a_tier_of_its_own(devices: Devices) -> None:
    fleet, grid = fleet_of(), InlineGrid(devices.app, 2, {})
    newcomer = grid.contexts.pop(1)
    refresh(fleet, grid, 1)
    grid.contexts[1] = newcomer
    refresh(fleet, grid, 2)
    assert [(c.row, c.name, c.tier) for c in fleet.clients] == [
        (0, "client-1", 2),
        (1, "client-0", 2),
    ]


def test_the_budget_follows_what_a_device_reports(devices: Devices) -> None:
    fleet = fleet_of(**{"expert-capacity": 4})
    refresh(fleet, InlineGrid(devices.app, 1, {}), 1)
    [client] = fleet.clients
    assert fleet.budget(client) == 4
    report = TrainReport(
        server_round=1,
        client="client-0",
        code_hash="",
        num_examples=5,
        expert_samples=[],
        expert_accuracy=[],
        expert_loss=[],
        expert_cap=1,
    )
    client.take_cache(report)
    client.take_memory(report)
    assert fleet.budget(client) == 1


def test_state_round_trip_keeps_everything_but_addresses(devices: Devices) -> None:
    fleet, grid = fleet_of(), InlineGrid(devices.app, 2, {})
    refresh(fleet, grid, 1)
    fleet.clients[1].note_answer(1, answered=False)
    restored = fleet_of()
    restored.load_state(fleet.state())
    assert [c.node_id for c in restored.clients] == [-1, -1]
    assert refresh(restored, grid, 2) == ["client-0", "client-1"]
    for client in (*fleet.clients, *restored.clients):
        client.link.latency = None  # by the clock
    np.testing.assert_equal(restored.state(), fleet.state())


def test_no_message_is_lost_by_an_empty_exchange() -> None:
    assert list(Mailbox().exchange(InlineGrid(ClientApp(), 0, {}), [], 1)) == []


def test_abandoned_replies_are_counted_when_they_come(devices: Devices) -> None:
    grid, mailbox = InlineGrid(devices.app, 3, {}), Mailbox()

    def queries(nodes: list[int]) -> list[Message]:
        return [Message(RecordDict(), node, "query") for node in nodes]

    replies = mailbox.exchange(grid, queries([1, 2]), timeout=5)
    next(replies)
    replies.close()
    assert mailbox.late == 0
    landed = list(mailbox.exchange(grid, queries([3]), timeout=5))
    assert [m.metadata.src_node_id for m in landed] == [3]
    assert mailbox.late == 1


def test_a_device_too_small_for_one_expert_waits_until_it_is_not(
    devices: Devices,
) -> None:
    fleet, grid = fleet_of(), InlineGrid(devices.app, 2, {})
    devices.changes = {"memory_available": 200 << 20, "process_bytes": 190 << 20}
    assert refresh(fleet, grid, 1) == []
    assert fleet.refused["client-0"] == (
        "its 200 MiB of memory are too few to train one expert"
    )
    # It is asked again, since something else may have been in its memory.
    devices.changes = {"memory_available": 1 << 30, "process_bytes": 190 << 20}
    assert refresh(fleet, grid, 2) == ["client-0", "client-1"]
    assert fleet.refused == {}
    assert [fleet.budget(client) for client in fleet.clients] == [2, 2]


def test_another_version_of_a_part_is_refused_with_its_name(
    devices: Devices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "expert_of_ours.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    devices.changes = {"code_hash": code_hash() + "0" * 16}
    fleet = fleet_of(expert="expert_of_ours:Expert")
    assert refresh(fleet, InlineGrid(devices.app, 2, {}), 1) == []
    refused = fleet.refused["client-0"]
    assert "has another version of expert_of_ours than the server (0000000" in refused
