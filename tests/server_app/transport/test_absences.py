"""Devices out of reach: whom the SuperLink is asked about, and when, by the clock."""

import time

import pytest
from flwr.proto.node_pb2 import NodeInfo

from server_app.transport.absences import AWAY_SECONDS, Absences


class Town:
    """Two nodes, of which Flower lists those that it takes for online."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.until = {7: 1_060.0, 8: 1_060.0}
        self.looks = 0
        monkeypatch.setattr(time, "time", lambda: self.now)
        self.absences = Absences(self.nodes)

    def nodes(self) -> list[NodeInfo]:
        self.looks += 1
        return [
            NodeInfo(node_id=node, online_until=until)
            for node, until in self.until.items()
            if until > self.now
        ]

    def at(self, now: float) -> list[int]:
        self.now = now
        return [node for node in (7, 8) if self.absences.may_ask(node)]


def test_a_fleet_that_is_there_is_asked_about_and_seldom_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town = Town(monkeypatch)
    for now in range(1_000, 1_200):
        town.until = dict.fromkeys((7, 8), now // 20 * 20 + 60.0)
        assert town.at(now) == [7, 8]
    assert town.looks <= 6


def test_nobody_asks_about_a_device_whose_link_is_gone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town = Town(monkeypatch)
    assert town.at(1_000.0) == [7, 8]
    # Number 8 is heard no more: it is online until 1060, and not asked about from 1055.
    town.until[7] = 2_000.0
    assert town.at(1_054.0) == [7, 8]
    for now in (1_055.0, 1_059.0, 1_061.0, 1_100.0):
        assert town.at(now) == [7]
    # 90 s after it went, it is back.
    town.until[8] = 1_150.0
    assert town.at(1_110.0) == [7, 8]


def test_a_device_that_stays_away_is_asked_about_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town = Town(monkeypatch)
    town.until[7] = 9_000.0
    assert town.at(1_056.0) == [7]
    assert town.at(1_055.0 + AWAY_SECONDS) == [7]
    assert town.at(1_057.0 + AWAY_SECONDS) == [7, 8]
