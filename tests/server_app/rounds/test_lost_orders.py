"""Orders that a device lost are sent again, a few times."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo

from common.inline_grid import InlineGrid
from server_app.rounds.orders import LOSSES
from server_app.transport import pings
from tests.server_app.rounds.runs import run, settings_of


class ForgetfulGrid(InlineGrid):
    """Node 3, client-2, loses its order of round 2 and is back a moment later."""

    node, losses = 3, 1
    back = ""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = list(messages)
        ids = super().push_messages(pushed)
        for message in pushed:
            about = message.metadata
            address = (about.dst_node_id, about.message_type, about.group_id)
            if self.losses and address == (self.node, "train", "2"):
                self.losses -= 1
                del self._pending[about.message_id]
                self.back = datetime.now(UTC).isoformat()
        return ids

    def get_nodes(self) -> list[NodeInfo]:
        return [
            NodeInfo(
                node_id=node,
                last_activated_at=self.back * (node == self.node),
                heartbeat_interval=30,
            )
            for node in self.get_node_ids()
        ]


def test_an_order_that_a_device_lost_is_sent_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pings, "LOOK_SECONDS", 0.0)
    # A folder each: of two runs that start within a second the second has a longer
    # name there, and the name is in every message.
    folder, rounds = run(tmp_path / "lost", settings_of(), grid=ForgetfulGrid)
    expected, undisturbed = run(tmp_path / "undisturbed", settings_of())
    [once] = [c for c in undisturbed[1]["clients"] if c["client"] == "client-2"]
    extra = [0, once["bytes_down"], 0]
    for record, other, more in zip(rounds, undisturbed, extra, strict=True):
        assert record["rejected"] == {}
        assert record["bytes_down"] == other["bytes_down"] + more
    assert rounds[1]["notes"] == ["client-2: lost on the way, asked again"]
    model = (folder / "model.safetensors").read_bytes()
    assert model == (expected / "model.safetensors").read_bytes()


def test_a_device_that_loses_every_order_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hopeless(ForgetfulGrid):
        losses = 100

    monkeypatch.setattr(pings, "LOOK_SECONDS", 0.0)
    _, rounds = run(tmp_path, settings_of(), grid=Hopeless)
    assert rounds[1]["rejected"] == {"client-2": "error 3: lost on the way"}
    assert rounds[1]["notes"] == ["client-2: lost on the way, asked again"] * LOSSES
    assert rounds[1]["merged"] and rounds[2]["rejected"] == {}
