"""A reply counts for no more samples than its client said it has."""

from dataclasses import replace
from typing import Any

import pytest

from common.wire import QueryReply, TrainOrder, TrainReport
from server_app.fleet.client import Client
from server_app.rounds.intake import claims_more, counted
from server_app.rounds.orders import SentOrder

PROFILE = QueryReply(
    client="cam",
    partition_id=-1,
    num_partitions=0,
    num_examples=40,
    code_hash="",
    partition_hash="",
)
ORDER = TrainOrder(
    run="r", server_round=1, experts=[0, 2], num_experts=4, top_k=1, gate="private"
)


def sent(**fields: Any) -> SentOrder:
    client = Client(row=0, name="cam", node_id=1, profile=PROFILE)
    return SentOrder(
        client=client, order=ORDER, layouts={}, arrays={}, ttl=1.0, budget=2, **fields
    )


def report(samples: int, routed: list[int]) -> TrainReport:
    return TrainReport(
        server_round=1,
        client="cam",
        code_hash="",
        num_examples=samples,
        expert_samples=routed,
        expert_accuracy=[0.5, 0.5],
        expert_loss=[1.0, 1.0],
    )


def test_data_that_grew_count_for_what_was_said() -> None:
    found = counted(report(100, [70, 30]), sent(most_examples=40, may_grow=True))
    assert (found.num_examples, found.expert_samples) == (40, [28, 12])
    # 10^9 is the most a report can claim.
    found = counted(report(10**9, [10**9, 0]), sent(most_examples=40, may_grow=True))
    assert (found.num_examples, found.expert_samples) == (40, [40, 0])


@pytest.mark.parametrize("samples", [1, 39, 40])
def test_no_more_than_was_said_stays_as_it_is(samples: int) -> None:
    said = report(samples, [samples, 0])
    assert counted(said, sent(most_examples=40, may_grow=True)) is said


def test_held_out_samples_that_grew_are_not_counted_until_it_is_asked_again() -> None:
    said = report(40, [40, 0]).model_copy(
        update={"client_local": 0.5, "local_counts": [2, 1, 1, 0]}
    )
    more = sent(most_examples=40, most_held_out=3, may_grow=True, num_classes=2)
    found = counted(said, more)
    assert (found.local_counts, found.client_local) == ([], 0.5)
    assert found.num_examples == 40
    assert claims_more(said, more)
    as_said = sent(most_examples=40, most_held_out=4, may_grow=True, num_classes=2)
    assert counted(said, as_said) is said
    assert not claims_more(said, as_said)
    assert counted(said, replace(more, may_grow=False)) is said  # refused elsewhere


def test_a_share_of_a_set_cannot_grow_and_is_refused_elsewhere() -> None:
    said = report(100, [70, 30])
    assert counted(said, sent(most_examples=40)) is said
    assert counted(said, sent(most_examples=None, may_grow=True)) is said
