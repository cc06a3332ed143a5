"""What is accepted of one reply: as it came, cut down, or nothing."""

from typing import Any

import numpy as np
import pytest

from common.moe import Vector
from common.wire import QueryReply, TrainOrder, TrainReport, WireError
from server_app.fleet.client import Client
from server_app.merging.bounds import NormBounds
from server_app.rounds.intake import Accepted, accepted
from server_app.rounds.orders import SentOrder
from tests.server_app.strategies.handmade import profile

ORDER = TrainOrder(
    run="r", server_round=1, experts=[0, 2], num_experts=4, top_k=1, gate="private"
)
PARTS = ("extractor", "expert.0", "expert.2")
SAID: QueryReply = profile(client="cam", num_examples=40)


def take(
    routed: list[int], *, change: float = 1.0, bounds: NormBounds, **fields: Any
) -> Accepted:
    """Take a reply of 40 samples in which each part changed by one value."""
    sent = SentOrder(
        client=Client(row=3, name="cam", node_id=1, profile=SAID),
        order=ORDER,
        layouts={part: (("weight", (4,)),) for part in PARTS},
        arrays={},
        ttl=1.0,
        budget=2,
        **fields,
    )
    report = TrainReport(
        server_round=1,
        client="cam",
        code_hash="",
        num_examples=40,
        expert_samples=routed,
        expert_accuracy=[0.5, 0.5],
        expert_loss=[1.0, 1.0],
    )
    deltas: dict[str, Vector] = {part: np.full(4, change, np.float32) for part in PARTS}
    return accepted(report, deltas, sent, 100.0, bounds)


def known(usual: float) -> NormBounds:
    """Return bounds of two medians, after a round of changes of one size."""
    bounds = NormBounds(2.0)
    bounds.learn([dict.fromkeys(PARTS, usual)])
    return bounds


def test_a_usual_reply_is_accepted_as_it_came() -> None:
    found = take([30, 10], bounds=known(1.0))
    assert (found.reply.client, found.cuts) == (3, {})
    assert found.reply.report is found.report
    assert found.changes == {"extractor": 1.0, "expert.0": 1.0, "expert.2": 1.0}


def test_others_are_held_against_no_idle_expert() -> None:
    assert set(take([40, 0], bounds=known(1.0)).changes) == {"extractor", "expert.0"}


def test_what_is_cut_down_is_known_as_it_came() -> None:
    found = take([30, 10], change=4.0, bounds=known(1.0))
    assert found.cuts == dict.fromkeys(PARTS, 0.25)
    assert found.reply.deltas["extractor"].tolist() == [1.0] * 4
    assert found.changes["extractor"] == 4.0


def test_samples_are_cut_down_in_what_is_merged_alone() -> None:
    found = take([30, 10], bounds=NormBounds(0.0), most_counted=20)
    assert found.cuts == {"samples": 0.5}
    assert (found.report.num_examples, found.report.expert_samples) == (40, [30, 10])
    merged = found.reply.report
    assert (merged.num_examples, merged.expert_samples) == (20, [15, 5])


@pytest.mark.parametrize(
    ("change", "why"), [(200.0, "max-update is 100"), (50.0, "50 times the median")]
)
def test_what_is_too_far_off_is_refused(change: float, why: str) -> None:
    with pytest.raises(WireError, match=why):
        take([30, 10], change=change, bounds=known(1.0))
