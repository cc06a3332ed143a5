"""Who is refused, by what, and asked again: other code, other shares, a second node."""

from typing import Any

import pytest

from server_app.fleet import nodes
from tests.server_app.fleet.town import OLD, Server, Town


def test_who_is_turned_away_is_asked_again_and_more_and_more_rarely() -> None:
    town = Town(2)
    town.says[2] = OLD
    server = Server(town)
    rounds = []
    for server_round in range(1, 40):
        before = len(town.asked)
        assert server.ready(server_round) == ["client-0"]
        rounds += [server_round] * (2 in town.asked[before:])
    # 1, then after 1, 2, 4, 8, 9, 9 rounds.
    assert rounds == [1, 2, 4, 8, 16, 25, 34]
    assert "other code" in server.fleet.refused["client-1"]
    assert town.asked.count(1) == 1
    town.says = {}
    assert [server.ready(r) for r in (42, 43)] == [
        ["client-0"],
        ["client-0", "client-1"],
    ]
    assert server.fleet.refused == {}


def test_who_is_turned_away_is_asked_again_in_a_round_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "RETRY_SECONDS", 0.0)
    town = Town(1)
    town.says[1] = OLD
    server = Server(town)
    assert server.ready(1) == []
    town.says = {}
    assert server.ready(1) == ["client-0"]


@pytest.mark.parametrize("change", ["activated", "left and came", "new address"])
def test_who_visibly_changed_is_asked_at_once(change: str) -> None:
    town = Town(3)
    town.says[2] = OLD
    town.broken = {3}
    server = Server(town)
    for server_round in range(1, 10):
        assert server.ready(server_round) == ["client-0"]
    town.says, town.broken = {}, set()
    if change == "activated":
        town.activated = {2: "2026-01-02T00:00:00Z", 3: "2026-01-02T00:00:00Z"}
    elif change == "left and came":
        town.here = [1]
        assert server.ready(9) == ["client-0"]
        assert server.fleet.refused == {}
        town.here = [1, 2, 3]
    else:
        for new, old in ((12, 2), (13, 3)):
            town.contexts[new] = town.contexts.pop(old)
        town.here = [1, 12, 13]
    assert server.ready(9) == ["client-0", "client-1", "client-2"]
    assert server.fleet.refused == {}


WRONG_CUTS = [{"num_partitions": 7}, {"num_partitions": 2}, {"partition_hash": "q"}]


@pytest.mark.parametrize("wrong", WRONG_CUTS)
@pytest.mark.parametrize("first", ["first", "second", "together"])
def test_who_cuts_the_data_otherwise_is_out_whenever_it_came(
    wrong: dict[str, Any], first: str
) -> None:
    town = Town(4)
    town.says[1] = wrong
    server = Server(town)
    waves = {
        "first": ([1], [1, 2], [1, 2, 3], [1, 2, 3, 4]),
        "second": ([2], [2, 1], [2, 1, 3], [2, 1, 3, 4]),
        "together": ([1, 2], [1, 2, 3], [1, 2, 3, 4]),
    }[first]
    for server_round, town.here in enumerate(waves, start=1):
        server.ready(server_round)
    names = server.ready(9)
    assert sorted(names) == ["client-1", "client-2", "client-3"]
    assert "overlap" in server.fleet.refused["client-0"]

    town.says, town.activated = {}, {1: "2026-01-02T00:00:00Z"}
    assert sorted(server.ready(10)) == [f"client-{i}" for i in range(4)]
    assert server.fleet.refused == {}


def test_of_two_that_disagree_the_first_stays_until_most_say_otherwise() -> None:
    town = Town(5, partitions=5)
    town.says = {node: {"num_partitions": 6} for node in (1, 4)}
    server = Server(town)
    # The second is not asked again for it: nothing has changed.
    for server_round, here, ready in (
        (1, [1], [0]),
        (2, [1, 2], [0]),
        (3, [1, 2, 3], [1, 2]),
        # Two against two: who is in stays.
        (4, [1, 2, 3, 4], [1, 2]),
        (5, [1, 2, 3, 4, 5], [1, 2, 4]),
    ):
        town.here = here
        names = sorted(server.ready(server_round))
        assert names == [f"client-{i}" for i in ready]


def test_who_is_gone_and_was_refused_has_no_say_and_a_name_has_one() -> None:
    town = Town(6, partitions=6)
    # One device, started three times over.
    town.says = {n: {"client": "client-0", "num_partitions": 7} for n in (1, 3, 4)}
    server = Server(town)
    town.here = [1, 3, 4]
    assert server.ready(1) == ["client-0"]
    town.here = [1, 3, 4, 2]
    assert server.ready(2) == ["client-0"]
    town.here = [1, 3, 4, 5]
    assert server.ready(3) == ["client-0"], "client-1 is gone"
    town.here = [1, 3, 4, 5, 6]
    assert sorted(server.ready(4)) == ["client-4", "client-5"]


def test_a_client_that_comes_back_with_other_code_takes_part_no_more() -> None:
    town = Town(2)
    server = Server(town)
    assert server.ready(1) == ["client-0", "client-1"]
    town.says[2], town.activated[2] = OLD, "2026-01-02T00:00:00Z"
    assert server.ready(2) == ["client-0"]
    assert "other code" in server.fleet.refused["client-1"]
    town.says = {}
    assert server.ready(3) == ["client-0", "client-1"]


def test_a_node_that_changes_its_name_is_one_client() -> None:
    town = Town(2)
    server = Server(town)
    server.ready(1)
    town.says[2] = {"client": "other"}
    town.activated[2] = "2026-01-02T00:00:00Z"
    assert server.ready(2) == ["client-0", "other"]
    assert [client.name for client in server.fleet.clients] == [
        "client-0",
        "client-1",
        "other",
    ]


DOUBLES: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"client": "client-0", "partition_id": 1}, "under this name"),
    "share": ({"partition_id": 0}, "same share of the data"),
    "both": ({"client": "client-0", "partition_id": 0}, "under this name"),
}


@pytest.mark.parametrize("double", DOUBLES)
@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_the_second_node_of_a_client_is_refused_while_the_first_lives(
    double: str, virtual: bool, at_once: bool
) -> None:
    town = Town(3, virtual=virtual)
    town.says[2], words = DOUBLES[double]
    server = Server(town)
    if not at_once:
        town.here = [1, 3]
        server.ready(1)
        town.here = [1, 2, 3]
    for server_round in range(2, 12):
        assert server.ready(server_round) == ["client-0", "client-2"]
        assert server.fleet.clients[0].node_id == 1
        [(label, reason)] = server.fleet.refused.items()
        assert words in reason and "node 2" in label
    town.here = [2, 3]
    name = str(town.says[2].get("client", "client-1"))
    assert sorted(server.ready(12)) == sorted([name, "client-2"])
    assert server.fleet.refused == {}
    town.here = [1, 2, 3]
    # Now the other one is the second.
    assert sorted(server.ready(13)) == sorted([name, "client-2"])
    assert len(server.fleet.refused) == 1


@pytest.mark.parametrize("dead", ["broken", "deaf"])
def test_a_device_that_restarts_gets_in_though_its_old_node_is_still_listed(
    dead: str,
) -> None:
    town = Town(3)
    town.says[3] = {"client": "client-0", "partition_id": 0}
    server = Server(town)
    town.here = [1, 2]
    assert server.ready(1) == ["client-0", "client-1"]
    town.here = [1, 2, 3]
    getattr(town, dead).add(1)
    server.ready(2, timeout=0.0)
    assert server.ready(3, timeout=0.0) == ["client-0", "client-1"]
    assert server.fleet.clients[0].node_id == 3
    assert len(server.fleet) == 2


def test_devices_with_data_of_their_own_are_no_doubles() -> None:
    town = Town(2, partitions=1)
    town.says = {2: {"partition_id": 0}}
    assert Server(town).ready(1) == ["client-0", "client-1"]


def test_a_share_that_was_given_up_is_free() -> None:
    town = Town(3)
    server = Server(town)
    town.here = [1, 2]
    assert server.ready(1) == ["client-0", "client-1"]
    town.says = {1: {"partition_id": 3}, 3: {"partition_id": 0}}
    town.activated = {1: "2026-01-02T00:00:00Z"}
    assert server.ready(2) == ["client-0", "client-1"]
    town.here = [1, 2, 3]
    assert server.ready(3) == ["client-0", "client-1", "client-2"]


def test_one_cause_is_one_line_however_many_it_keeps_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    town = Town(50, partitions=50)
    town.says = {node: OLD for node in town.here}
    Server(town).ready(1)
    [line] = [r.message for r in caplog.records if "refused" in r.message]
    assert line.startswith("refused: client-0, client-1, client-2, client-3 and 46 oth")
