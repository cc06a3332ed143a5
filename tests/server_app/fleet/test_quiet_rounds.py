"""A round in which little has changed: nobody else is looked into again."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from server_app.fleet import same_data
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.fleet import Fleet
from server_app.run_folder.checkpoint import decode, encode
from tests.server_app.fleet.town import Server, Town


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is worked out of what devices say."""
    found: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        before = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            found[name] += 1
            return before(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    count(DeviceBudget, "__call__")
    count(same_data, "refusals")
    return found


def test_only_who_has_changed_is_looked_into(counted: Counter[str]) -> None:
    town = Town(4)
    server = Server(town)
    assert len(server.ready(1)) == 4
    assert counted == {"__call__": 4, "refusals": 1}
    counted.clear()
    assert len(server.ready(2)) == 4
    assert counted == {}
    town.activated[2], town.says[2] = "2026-02-02T00:00:00Z", {"expert_cap": 1}
    assert len(server.ready(3)) == 4
    assert counted == {"__call__": 1, "refusals": 1}
    assert [server.fleet.budget(c) for c in server.fleet.clients] == [2, 1, 2, 2]
    counted.clear()
    town.here = [1, 2, 3]  # of those that are left others may be most
    assert len(server.ready(4)) == 3
    assert counted == {"refusals": 1}


@pytest.mark.parametrize("change", ["tier", "speed"])
def test_a_budget_follows_what_it_is_made_of(change: str) -> None:
    server = Server(Town(1), upload_seconds=1.0, expert_capacity=8)
    server.ready(1)
    [client] = server.fleet.clients
    server.fleet.begin([client])
    assert server.fleet.budget(client) == 8
    if change == "tier":
        client.grant(3)
        assert server.fleet.budget(client) == 3
    else:
        client.link.speed = 1.0  # a byte a second
        assert server.fleet.budget(client) == 1


def test_run_json_is_written_again_only_where_it_says_something_else() -> None:
    town = Town(3)
    town.here = [1, 2]
    server = Server(town)
    server.ready(1)
    before = server.fleet.outline()
    server.fleet.clients[0].note_answer(1, answered=True)
    assert server.fleet.outline() == before
    town.here = [1, 2, 3]
    town.says[3] = {"partition_id": 2, "code_hash": "0" * 16}
    server.ready(2)
    assert server.fleet.outline() != before
    facts = server.fleet.facts()
    assert facts["refused"] == server.fleet.outline()["refused"] != {}
    assert [*facts["clients"]] == [*before["clients"]]


def kept(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = decode(encode(fleet.state()))
    return found


def test_what_a_checkpoint_keeps_of_clients_comes_back() -> None:
    town = Town(3)
    town.says[2] = {"memory_available": 10**9, "moments_mean": [0.1], "cores": 2.5}
    server = Server(town)
    fleet = server.fleet
    fleet.begin(fleet.refresh(town, server.mailbox, 1, 5.0))
    one, two, three = fleet.clients
    one.note_answer(1, answered=False)
    two.holds, two.link.latency, two.link.speed = ["ab" * 8], 0.1 + 0.2, 1e7 / 3
    three.note_base(5, whole=False)
    three.link.latency = None
    three.note_merged(1)
    again = Server(Town(3)).fleet
    again.load_state(kept(fleet))
    np.testing.assert_equal(again.state(), fleet.state())
    for before, after in zip(fleet.clients, again.clients, strict=True):
        before.leave()
        before.vouched = False
        assert after == before
        assert after.profile == before.profile


def test_of_a_client_hardly_more_is_kept_than_it_said() -> None:
    town = Town(3)
    server = Server(town)
    server.ready(1)
    [text, *_] = server.fleet.state()["profiles"]
    assert json.loads(text).keys() == {
        "protocol",
        "client",
        "partition_id",
        "num_partitions",
        "num_examples",
        "code_hash",
        "partition_hash",
        "task_hash",
    }
