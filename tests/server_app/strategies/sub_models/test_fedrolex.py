"""FedRolex: rates, extraction and the merge by hand (docs/methods.md, 4)."""

from typing import Any

import numpy as np
import pytest

from client_app.app import app as client_app
from common import wire
from common.inline_grid import InlineGrid
from common.moe import unflatten
from common.settings import Settings
from server_app.rounds.loop import RoundLoop
from server_app.strategies.base import Plan, Reply
from server_app.strategies.sub_models.fedrolex import FedRolex
from tests.server_app.strategies import handmade
from tests.server_app.strategies.handmade import spec_of, view_of

SPEC = spec_of(4, input_shape=(1, 1, 1), expert_hidden=3)


def strategy_of(options: str = "", capacity: str = "2", **changes: Any) -> FedRolex:
    config = {
        "num-experts": 4,
        "strategy-options": options,
        "expert-capacity": capacity,
        **changes,
    }
    return FedRolex(Settings.from_run_config(config), SPEC)


def planned(strategy: FedRolex, budgets: list[int], server_round: int) -> Plan:
    return strategy.plan(view_of(budgets, 1, server_round=server_round))


def reply_of(
    client: int, n: int, rate: float, server_round: int, deltas: dict[str, Any]
) -> Reply:
    fields: dict[str, Any] = {"gate": "none", "width": rate}
    return handmade.reply_of(
        client, [0], [n], deltas, num_experts=1, server_round=server_round, **fields
    )


@pytest.mark.parametrize(
    ("options", "capacity", "budgets", "rates"),
    [
        ("", "2", [2, 2], [0.5, 0.5]),
        ("", "1:0.5,2:0.25,4:0.25", [1, 2, 4], [0.25, 0.5, 1.0]),
        ("rate=0.8", "1:0.5,4:0.5", [1, 4], [0.2, 0.8]),
        # A device whose owner allows less than its tier is sent less.
        ("rate=1.0", "2", [1, 2], [0.5, 1.0]),
        # One whose owner allows more is sent more, and never more than there is.
        ("", "1", [1, 2, 4], [0.5, 1.0, 1.0]),
    ],
)
def test_rates_follow_the_budgets(
    options: str, capacity: str, budgets: list[int], rates: list[float]
) -> None:
    plan = planned(strategy_of(options, capacity), budgets, 1)
    assert [plan.client_order[row]["width"] for row in range(len(rates))] == rates
    assert plan.assignment.all()


def test_budgets_are_not_capped_by_the_one_dense_expert() -> None:
    strategy = strategy_of("", "1:0.5,4:0.5")
    grid = InlineGrid(client_app, 4, {"num-experts": 4})
    messages = RoundLoop(strategy).open(1, grid)
    orders = [wire.decode_order(message.content) for message in messages]
    assert sorted(order.width for order in orders) == [0.25, 0.25, 1.0, 1.0]


def test_the_extracted_window_by_hand() -> None:
    # Hidden layer of 3 units, rate 0.5: ceil(1.5) = 2 units. Round 2: units 2 and 0.
    strategy = strategy_of()
    content = planned(strategy, [2], 2).content[0]
    whole = unflatten(strategy.model["expert.0"], SPEC.layout("expert.0"))
    narrow = content["expert.0"]
    assert narrow.size == 2 * 32 + 2 + 2 * 2 + 2
    features = (2 + np.arange(32)) % 64
    np.testing.assert_array_equal(
        narrow[:64].reshape(2, 32), whole["hidden.weight"][[2, 0]][:, features]
    )
    np.testing.assert_array_equal(narrow[64:66], whole["hidden.bias"][[2, 0]])
    np.testing.assert_array_equal(narrow[66:70], whole["out.weight"][:, [2, 0]].ravel())
    np.testing.assert_array_equal(narrow[70:], whole["out.bias"])


def test_clients_of_one_rate_share_one_vector() -> None:
    content = planned(strategy_of(), [2, 2], 1).content
    assert content[0]["extractor"] is content[1]["extractor"]


def test_each_coordinate_is_the_mean_over_its_holders() -> None:
    strategy = strategy_of()
    before = strategy.model["expert.0"]
    # Round 1. Client 0 holds units {1, 2} of 3, client 1 all; 10 and 30 samples.
    full = SPEC.dense()
    small = strategy.positions("expert.0", 0.5, 1).size
    for client, n, rate, change, size in (
        (0, 10, 0.5, 4.0, small),
        (1, 30, 1.0, 8.0, full.size("expert.0")),
    ):
        deltas = {"expert.0": np.full(size, change, np.float32)}
        strategy.merge(reply_of(client, n, rate, 1, deltas))
    strategy.finish()
    moved = unflatten(strategy.model["expert.0"] - before, full.layout("expert.0"))
    # Both held units 1 and 2: (10 * 4 + 30 * 8) / 40 = 7; only client 1 held unit 0.
    np.testing.assert_allclose(moved["hidden.bias"], [8, 7, 7], rtol=1e-5)
    np.testing.assert_allclose(moved["out.weight"], [[8, 7, 7]] * 2, rtol=1e-5)
    np.testing.assert_allclose(moved["out.bias"], [7, 7], rtol=1e-5)
    both = np.isin(np.arange(64), (1 + np.arange(32)) % 64)
    np.testing.assert_allclose(
        moved["hidden.weight"][1], np.where(both, 7, 8), rtol=1e-5
    )
    np.testing.assert_allclose(moved["hidden.weight"][0], 8, rtol=1e-5)


def test_what_nobody_held_does_not_move() -> None:
    strategy = strategy_of()
    before = strategy.model["extractor"]
    size = strategy.positions("extractor", 0.5, 60).size
    deltas = {"extractor": np.ones(size, np.float32)}
    strategy.merge(reply_of(0, 5, 0.5, 60, deltas))
    strategy.finish()
    moved = strategy.model["extractor"] != before
    # Round 60 of 64 units: the window is {60, ..., 63, 0, ..., 27}.
    expected = np.isin(np.arange(64), (60 + np.arange(32)) % 64)
    np.testing.assert_array_equal(moved, np.tile(expected, 2))


@pytest.mark.parametrize("backbone", ["mlp", "cnn", "resnet8"])
def test_three_rounds(backbone: str, exercise: Any) -> None:
    _, records = exercise(
        "fedrolex",
        backbone=backbone,
        **{"expert-capacity": "1:0.5,3:0.5", "train-samples": 120},
    )
    sent = {len(client.experts) for client in records[0].clients}
    assert sent == {1}
    sizes = {client.bytes_down for client in records[0].clients}
    assert max(sizes) > 2 * min(sizes)
