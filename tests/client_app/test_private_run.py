"""A device with ``privacy = "device"``, through its messages: what leaves it, and when.

It answers for itself: what is refused here is refused whoever asks.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from client_app.app import app
from client_app.dp_sgd import release_of
from client_app.session import Session
from common import wire
from common.errors import SettingsError
from common.inline_grid import InlineGrid
from common.moe import ModelSpec, Vector
from common.settings import Settings
from common.shape import dataset_of, model_spec
from common.wire import TrainOrder
from server_app.commands.simulate import simulate

CONFIG: dict[str, Any] = {
    "local-epochs": 1,
    "dataset": "digits",
    "seed": 3,
    "privacy": "device",
    "gate-balance": 0.0,
    "noise-multiplier": 2.0,
    "batch-size": 64,
    "max-epsilon": 4.0,
}


@pytest.fixture
def grid(tmp_path: Path) -> InlineGrid:
    return InlineGrid(app, 4, {**CONFIG, "state-dir": str(tmp_path)})


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    settings = Settings.from_run_config(CONFIG)
    return model_spec(settings, dataset_of(settings))


def order_of(server_round: int, **changes: Any) -> TrainOrder:
    fields: dict[str, Any] = {
        "run": "r",
        "server_round": server_round,
        "experts": [2, 5],
        "num_experts": 8,
        "top_k": 1,
    }
    return TrainOrder(**{**fields, **changes})


def send(grid: InlineGrid, spec: ModelSpec, order: TrainOrder) -> Message:
    parts = ["extractor", *(f"expert.{e}" for e in order.experts)]
    content = wire.encode_order(order, wire.pack(spec.initial(3, parts)))
    [reply] = grid.send_and_receive([Message(content, 1, "train")])
    return reply


def ask(
    grid: InlineGrid, spec: ModelSpec, order: TrainOrder
) -> tuple[wire.TrainReport, dict[str, Vector]]:
    reply = send(grid, spec, order)
    assert not reply.has_error(), reply.error.reason
    report, deltas = wire.decode_report(reply.content)
    return report, deltas


def query(grid: InlineGrid) -> Message:
    [reply] = grid.send_and_receive([Message(RecordDict(), 1, "query")])
    return reply


def error_of(reply: Message) -> str:
    assert reply.has_error()
    return reply.error.reason or ""


def record(folder: Path) -> dict[str, Any]:
    [file] = folder.glob("privacy/*/spent.json")
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found


def samples_of(grid: InlineGrid) -> int:
    return Session(grid.contexts[1]).num_examples


def test_a_report_says_nothing_of_the_samples(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    report, deltas = ask(grid, spec, order_of(1, evaluate=True, report_gate=True))
    n = samples_of(grid)
    assert report.num_examples == n  # that is no secret
    assert report.expert_samples == [n // 2, n // 2]
    assert report.expert_accuracy == [0.1, 0.1]
    assert report.expert_loss == pytest.approx([math.log(10)] * 2)
    assert set(report.gate_mass) == set(report.responsibility) == {0.0}
    assert report.train_loss == 0 and report.client_local is None
    assert report.client_global is None and not report.local_counts
    assert set(deltas) == {"extractor", "expert.2", "expert.5"}
    profile = wire.decode_query_reply(query(grid).content)
    assert profile.num_examples == profile.rows == n
    assert not profile.per_class and not profile.statistic_means


def test_no_two_answers_to_an_order_are_alike(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    # Nor is what makes them in the seed, which the server has.
    (_, one), (_, other) = (ask(grid, spec, order_of(1)) for _ in range(2))
    for part, delta in one.items():
        assert abs(delta - other[part]).max() > 1e-3


def test_epsilon_is_in_no_message(
    grid: InlineGrid, spec: ModelSpec, tmp_path: Path
) -> None:
    replies = [
        query(grid),
        *(send(grid, spec, order_of(n)) for n in (1, 2)),
        query(grid),
    ]
    known = record(tmp_path)
    told = {known["epsilon"], known["delta"]}
    for reply in replies:
        for each in reply.content.config_records.values():
            assert not any("epsilon" in key for key in each)
            for value in each.values():
                numbers = value if isinstance(value, list) else [value]
                assert not told & {v for v in numbers if isinstance(v, float)}


def test_every_answer_is_paid_for_a_repeated_one_too(
    grid: InlineGrid, spec: ModelSpec, tmp_path: Path
) -> None:
    settings = Settings.from_run_config(CONFIG)
    release, steps = release_of(samples_of(grid), settings.training, settings.privacy)
    assert steps == math.ceil(samples_of(grid) / 64) and release.multiplier == 2
    for times, order in enumerate(
        (order_of(1), order_of(1, attempt=1), order_of(2)), 1
    ):
        ask(grid, spec, order)
        assert record(tmp_path)["spent"] == [[*release, times * steps]]
    ask(grid, spec, order_of(1, run="another"))
    assert record(tmp_path)["spent"] == [[*release, 4 * steps]]


def test_what_is_cut_off_before_it_is_sent_is_paid_for(
    grid: InlineGrid, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object, **__: object) -> None:
        assert record(tmp_path)["spent"]  # on the disk before a sample is looked at
        raise KeyboardInterrupt

    monkeypatch.setattr("client_app.local_round.train_private", cut)
    with pytest.raises(KeyboardInterrupt):
        send(grid, spec, order_of(1))
    assert record(tmp_path)["spent"]


@pytest.mark.slow
def test_who_has_spent_all_says_so_and_trains_no_more(
    grid: InlineGrid, spec: ModelSpec, tmp_path: Path
) -> None:
    for number in range(1, 100):
        reply = send(grid, spec, order_of(number))
        if reply.has_error():
            break
        assert record(tmp_path)["epsilon"] <= 4
    assert 3 < number < 99
    before = record(tmp_path)
    assert "the privacy budget of this device is spent" in error_of(reply)
    refusal = wire.decode_refusal(query(grid).content)
    assert refusal is not None and "trains no more" in refusal.reason
    assert not any(c.isdigit() for c in refusal.reason)
    # What it has is still measured, and nothing more is spent.
    assert send(grid, spec, order_of(number + 1)).has_error()
    assert record(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"candidates": 2}, "a choice by the samples"),
        ({"method": "ditto", "personal_epochs": 1}, "the method 'ditto'"),
        ({"masked_loss": True}, "classes that are here"),
        ({"calibration": 1.0}, "loss-calibration"),
    ],
)
def test_an_order_that_would_say_more_is_refused(
    grid: InlineGrid, spec: ModelSpec, changes: dict[str, Any], named: str
) -> None:
    reply = send(grid, spec, order_of(1, **changes))
    assert named in error_of(reply)


def test_flower_s_own_strategies_and_measuring_are_refused(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    dense = spec.dense()
    arrays = ArrayRecord(wire.pack(dense.initial(3, ["extractor", "expert.0"])))
    content = RecordDict(
        {"arrays": arrays, "config": ConfigRecord({"server-round": 1})}
    )
    [reply] = grid.send_and_receive([Message(content, 1, "train")])
    assert "a strategy of Flower's own" in error_of(reply)
    fields = order_of(1, train=False, experts=[0, 1]).model_dump()
    order = wire.MeasureOrder(**{**fields, "predictor": "usage", "weights": [1.0, 1.0]})
    vectors = spec.initial(3, ["extractor", "expert.0", "expert.1"])
    content = wire.encode_order(order, wire.pack(vectors))
    [reply] = grid.send_and_receive([Message(content, 1, "evaluate")])
    assert "measuring on devices" in error_of(reply)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gate-balance": 0.01}, "gate-balance = 0.01"),
        ({"norm": "batch"}, "norm = 'batch'"),
        ({"loss-calibration": 0.5}, "loss-calibration = 0.5"),
        ({"precision": "bfloat16"}, "precision = 'bfloat16'"),
        ({"sampling-rate": 0.5}, "sampling-rate = 0.5"),
        ({"drift": 0.1}, "drift = 0.1"),
        ({"client-metrics": "a:b"}, "client-metrics = 'a:b'"),
    ],
)
def test_settings_that_join_samples_are_refused(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named) as refused:
        Settings.from_run_config({**CONFIG, **changes})
    assert "\n" not in str(refused.value)


def test_an_owner_allows_no_run_that_counts_less(tmp_path: Path) -> None:
    free = {k: v for k, v in CONFIG.items() if k != "privacy"}
    for config in (free, {**CONFIG, "private-reports": "open"}):
        grid = InlineGrid(app, 2, {**config, "state-dir": str(tmp_path)})
        grid.contexts[1].node_config["max-epsilon"] = 2.0
        refusal = wire.decode_refusal(query(grid).content)
        assert refusal is not None
        assert "max-epsilon = 2 allows only runs with privacy" in refusal.reason


def test_an_owner_s_budget_is_the_smaller_one(spec: ModelSpec, tmp_path: Path) -> None:
    config = {**CONFIG, "max-epsilon": 0.0, "state-dir": str(tmp_path)}
    grid = InlineGrid(app, 4, config)
    grid.contexts[1].node_config |= {"max-epsilon": 2.0, "state-dir": str(tmp_path)}
    assert Session(grid.contexts[1]).privacy.max_epsilon == 2
    for number in range(1, 100):
        if send(grid, spec, order_of(number)).has_error():
            break
    assert record(tmp_path)["epsilon"] <= 2 and number > 1


def test_a_device_without_a_place_to_keep_it_takes_no_part() -> None:
    grid = InlineGrid(app, 4, CONFIG)
    grid.contexts[1].node_config["name"] = "pi0"
    refusal = wire.decode_refusal(query(grid).content)
    assert refusal is not None and "state-dir is missing" in refusal.reason


def test_open_reports_are_of_what_was_trained_on(spec: ModelSpec) -> None:
    grid = InlineGrid(app, 4, {**CONFIG, "private-reports": "open"})
    report, _ = ask(grid, spec, order_of(1, evaluate=True))
    assert report.train_loss > 0 and report.client_local is not None
    # By chance about as many as there are, not one each.
    assert sum(report.expert_samples) == pytest.approx(samples_of(grid), rel=0.25)


@pytest.mark.slow
def test_a_run_learns(tmp_path: Path) -> None:
    simulate(
        {
            **CONFIG,
            "num-rounds": 4,
            "num-experts": 2,
            "batch-size": 32,
            "lr": 0.1,
            "partition": "iid",
            "local-epochs": 2,
            "noise-multiplier": 0.5,
            "max-epsilon": 0.0,
            "output-dir": str(tmp_path),
        },
        3,
    )
    [lines] = tmp_path.rglob("metrics.jsonl")
    accuracies = [json.loads(line)["server_global"] for line in lines.open()]
    assert accuracies[-1] > 0.3  # chance is .1
    assert "epsilon" not in lines.read_text()
