"""A round whose clients have links: who is too slow, and how long is waited."""

import logging
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message

from client_app.app import app as client_app
from common import wire
from common.chunks import VARIABLE, chunk_size
from tests.server_app.rounds.runs import run
from tests.whole_runs import app_with

CONFIG: dict[str, Any] = {
    "num-rounds": 2,
    "num-experts": 1,
    "expert-capacity": 1,
    "local-epochs": 1,
    "train-samples": 100,
}


class Linked:
    """The real ClientApp; client-1 says how fast its link is."""

    def __init__(self, uplink: float) -> None:
        self.lifetimes: list[float] = []
        self.pieces: list[int] = []

        def query(message: Message, context: Context) -> Message:
            reply = client_app(message, context)
            said = wire.decode_query_reply(reply.content)
            if said.client == "client-1":
                said = said.model_copy(update={"uplink": uplink})
            return Message(wire.encode_query_reply(said), reply_to=message)

        def train(message: Message, context: Context) -> Message:
            self.lifetimes.append(message.metadata.ttl)
            arrays = message.content.array_records["arrays"]
            self.pieces.append(len(arrays["expert.0"].slice_array()))
            return client_app(message, context)

        self.app = app_with(query=query, train=train)


def test_a_link_that_is_too_slow_is_told_once_and_asked_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {**CONFIG, "round-deadline": 50.0}
    with caplog.at_level(logging.WARNING, "flwr"):
        _, records = run(tmp_path, config, Linked(1_000.0).app)
    [told] = [r.message for r in caplog.records if "round-deadline is 50" in r.message]
    # extractor 64 x 64 + 64, expert 64 x 32 + 32 and 32 x 10 + 10: 6 570 floats down,
    # 26.3 kB, and as much up, with what a report may have beside: 8 s per 1000 bytes/s.
    assert told.startswith("client-1 needs ")
    assert " at 8 kbit/s, round-deadline is 50" in told
    for record in records:
        assert told in record["notes"]
        assert all(each["replied"] for each in record["clients"])


def test_without_a_deadline_a_round_waits_for_the_slowest_link(tmp_path: Path) -> None:
    linked = Linked(1_000.0)
    run(tmp_path / "slow", {**CONFIG, "round-deadline": 0.0}, linked.app)
    first = linked.lifetimes[0]
    # All of a round have the same; twice the transfer beside the 900 s for work.
    assert set(linked.lifetimes[:6]) == {first}
    down_and_up = (first - 900.0) / 2 * 1_000.0
    assert 2 * 4 * 6_570 < down_and_up < 2 * 4 * 6_570 + 100_000
    unknown = Linked(0.0)
    run(tmp_path / "unknown", {**CONFIG, "round-deadline": 0.0}, unknown.app)
    assert set(unknown.lifetimes) == {900.0}


def test_orders_are_cut_for_the_slowest_link(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    large = {**CONFIG, "expert-hidden": 2_000}  # (64 + 1 + 10) * 2 000 + 10 floats
    linked = Linked(8_000.0)
    with caplog.at_level(logging.INFO, "flwr"):
        run(tmp_path / "slow", large, linked.app)
    pieces = -(-(600_040 + 128) // chunk_size(8_000.0))
    assert pieces == 19
    assert set(linked.pieces) == {pieces}
    said = [r.message for r in caplog.records if "orders go in" in r.message]
    assert said == ["orders go in pieces of 32 KiB, for the link of client-1"]
    quick = Linked(0.0)
    run(tmp_path / "quick", large, quick.app)
    assert set(quick.pieces) == {1}
