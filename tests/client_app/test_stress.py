"""How a client fails on purpose: as often as asked, and the same way every time."""

from typing import Any

import pytest

from client_app.session import Session
from client_app.stress import apply_stress, reported_capacity, true_capacity
from common.wire import TrainOrder
from tests.client_app.homes import context_of

CLIENTS = 40


def session_of(client: int, node: dict[str, Any], **config: Any) -> Session:
    changed = {key.replace("_", "-"): value for key, value in config.items()}
    share = {"partition-id": client, "num-partitions": CLIENTS}
    return Session(context_of({**share, **node}, changed))


def order_of(experts: int, server_round: int = 1) -> TrainOrder:
    held = list(range(experts))
    return TrainOrder(
        run="r", server_round=server_round, experts=held, num_experts=experts, top_k=1
    )


def test_a_client_holds_what_its_owner_says_else_what_its_tier_does() -> None:
    tiers = {"expert_capacity": "1:0.25,4:0.75"}
    held = [true_capacity(session_of(c, {}, **tiers)) for c in range(CLIENTS)]
    assert sorted(held) == [1] * 10 + [4] * 30
    assert true_capacity(session_of(0, {"expert-cap": 2}, **tiers)) == 2
    # Only what the owner says is told: tiers the server knows.
    assert reported_capacity(session_of(0, {}, **tiers)) == 0
    assert reported_capacity(session_of(0, {"expert-cap": 2}, **tiers)) == 2


def test_an_error_in_the_capacity_is_within_its_bound_and_never_below_1() -> None:
    config = {"expert_capacity": "8", "capacity_error": 0.3}
    sessions = [session_of(client, {}, **config) for client in range(CLIENTS)]
    told = [reported_capacity(session) for session in sessions]
    assert min(told) >= 6 and max(told) <= 10 and len({*told}) > 3
    assert [reported_capacity(session) for session in sessions] == told
    few = [session_of(c, {}, expert_capacity="1", capacity_error=0.9) for c in range(9)]
    assert all(reported_capacity(session) >= 1 for session in few)


def test_who_reported_too_much_is_out_of_memory() -> None:
    session = session_of(0, {}, expert_capacity="2", capacity_error=0.3)
    apply_stress(session, order_of(2))
    with pytest.raises(MemoryError, match="client-0 can hold 2 experts, not 3"):
        apply_stress(session, order_of(3))
    apply_stress(session_of(0, {}, expert_capacity="2"), order_of(3))


def test_as_many_drop_out_as_asked_and_the_same_again() -> None:
    def dropped() -> list[bool]:
        found = []
        for client in range(CLIENTS):
            session = session_of(client, {}, drop_out=0.3)
            for server_round in range(1, 11):
                try:
                    apply_stress(session, order_of(1, server_round))
                    found.append(False)
                except ConnectionError:
                    found.append(True)
        return found

    first = dropped()
    assert abs(sum(first) - 120) < 4 * (400 * 0.3 * 0.7) ** 0.5
    assert dropped() == first
