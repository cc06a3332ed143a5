"""One device that lies, with numbers and texts of the right type: its reply, no more.

Whole runs in this process: one of four clients sends what a case says, through the
door, ``merge``, ``learn``, the log, the run's files and the table.
"""

import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    RecordDict,
)
from flwr.clientapp import ClientApp

from client_app.app import app as real_app
from common import wire
from common.inline_grid import InlineGrid
from server_app.contract import Reply
from server_app.strategies.flex_moe import FlexMoE
from tests.whole_runs import app_with, only_run, rounds_of, serve

LIAR, CLIENTS = 0, 4
Lie = Callable[[Message], Message | None]


def run(folder: Path, app: ClientApp, **config: Any) -> list[dict[str, Any]]:
    config = {
        "num-experts": 4,
        "local-epochs": 1,
        "num-rounds": 2,
        "eval-every": 2,
        "train-samples": 200,
        "test-samples": 50,
        "set-aside-after": 50,
        **config,
        "output-dir": str(folder),
    }
    serve(config, InlineGrid(app, CLIENTS, config))
    return rounds_of(only_run(folder))


def lying(on_train: Lie | None = None, on_query: Lie | None = None) -> ClientApp:
    def answer(message: Message, context: Context, lie: Lie | None) -> Message:
        reply = real_app(message, context)
        if lie is None or context.node_config["partition-id"] != LIAR:
            return reply
        return lie(reply) or reply

    def query(message: Message, context: Context) -> Message:
        return answer(message, context, on_query)

    def train(message: Message, context: Context) -> Message:
        return answer(message, context, on_train)

    return app_with(query=query, train=train)


def says(**values: Any) -> Lie:
    def lie(reply: Message) -> None:
        report = reply.content.config_records[wire.REPORT]
        for key, value in values.items():
            name = key.replace("_", "-")
            old: Any = report.get(name)
            several = isinstance(old, list)
            report[name] = [value] * (len(old) or 500) if several else value

    return lie


def fails(reason: str) -> Lie:
    def lie(reply: Message) -> Message:
        order = Message(RecordDict(), reply.metadata.src_node_id, "train")
        order.metadata.__dict__.update(
            _message_id=reply.metadata.reply_to_message_id,
            _group_id=reply.metadata.group_id,
        )
        return Message(Error(2, reason), reply_to=order)

    return lie


def with_record(name: str, record: ConfigRecord | ArrayRecord) -> Lie:
    def lie(reply: Message) -> None:
        reply.content[name] = record

    return lie


TIMED = {"train-seconds": 9.0}
LARGEST = sys.float_info.max
WORST: dict[str, Any] = {
    "expert_accuracy": 1.0,
    "expert_loss": LARGEST,
    "train_loss": LARGEST,
    "seconds_train": LARGEST,
    "seconds_total": LARGEST,
    "memory_bytes": 2**53 - 1,
    "memory_available": 2**53 - 1,
    "memory_peak": 2**53 - 1,
    "expert_cap": 10**6,
}


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("flex-moe", {}),
        ("flex-moe", {"fitness": "loss", "merging": "clipped"}),
        ("flex-moe-plus", {"merging": "trimmed-mean"}),
        (
            "system-level",
            {"strategy-options": "capacity='estimated'", "train-seconds": 9},
        ),
        ("fedmix", {}),
        ("fedjets", {}),
        ("hfedmoe", {}),
        ("fedrolex", {}),
        ("fed-moe", {"reserved-samples": 50}),
        ("flwr:QFedAvg", {}),
        ("flwr:Krum", {}),
    ],
)
def test_the_largest_numbers_that_are_allowed_end_no_run(
    strategy: str, more: dict[str, Any], tmp_path: Path
) -> None:
    lie = says(**WORST)

    def all_at_once(reply: Message) -> None:
        lie(reply)
        report: Any = reply.content.config_records[wire.REPORT]
        for name, value in (
            ("expert-samples", report["num-examples"]),
            ("gate-mass", 1.0),
            ("responsibility", 1.0),
            ("label-information", 0.37),
            ("input-information", 0.37),
        ):
            if report.get(name):
                report[name] = [value] * len(report[name])
        for number in range(16):
            report[f"metrics.n{number}"] = LARGEST

    rounds = run(tmp_path, lying(all_at_once), strategy=strategy, **more)
    assert [record["merged"] for record in rounds] == [True, True]
    assert all(record["rejected"] == {} for record in rounds)
    assert np.isfinite(rounds[-1]["server_global"])


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (says(num_examples=10**9), "num-examples is 1000000000, but it said"),
        (says(num_examples=10**12), "num-examples is 1000000000000: must be"),
        (says(expert_samples=2**52), "are possible"),
        (says(label_information=1e300), "label-information.0 is 1e"),
        (says(seconds_total=-1.0), "seconds-total is -1"),
        (says(train_loss=float("nan")), "train-loss is nan"),
        (says(code_hash="x\n\x1b[92mINFO : round 99"), "code-hash is"),
        (says(holds="0" * 16), "holds 500 parts"),
        (says(**{"metrics.a": float("inf")}), "metrics.a is inf: must be a finite"),
        (says(**{"metrics.a b": 1.0}), "'a b': must be 1 to 40 letters"),
        (says(**{"metrics.\x1b[2J": 1.0}), r"metrics.\?\[2J"),
        (says(**{f"metrics.n{n}": 1.0 for n in range(17)}), "at most 16 items"),
        (says(**{f"metrics.n{n}": 1.0 for n in range(2000)}), "bytes, at most"),
        (with_record("junk", ConfigRecord({"a": "b"})), "unknown records: 'junk'"),
        (with_record("junk", ConfigRecord({"a": "b" * 10**6})), "bytes, at most"),
        (fails("A" * 10**6), "error 2: AAA"),
        (fails("\x1b[2J\nINFO : all fine"), r"error 2: \?\[2J$"),
        (fails("ray.exceptions.ActorDiedError: boo"), "error 2: ray"),
    ],
)
def test_a_lie_costs_the_liar_its_reply_and_is_named(
    lie: Lie, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rounds = run(tmp_path, lying(lie))
    for record in rounds:
        assert record["merged"]
        assert [*record["rejected"]] == ["client-0"]
        reason = record["rejected"]["client-0"]
        assert len(reason) < 330
        assert re.search(why, reason)
        assert sum(client["replied"] for client in record["clients"]) == CLIENTS - 1
    assert "\x1b[2J" not in caplog.text and "\nINFO : " not in caplog.text


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (says(partition_hash="a" * 10**6), "query reply of"),
        (says(partition_hash="a" * 65), "partition-hash is"),
        (says(client="a b"), "client is 'a b': must be 1 to 100 letters"),
        (says(client="\ud800"), "half a character"),
        (says(cores=1e308), "cores is"),
        (says(num_examples=10**12), "num-examples is"),
        (says(num_partitions=3), "it has one of 3 shares of the data set"),
        (says(data_hash="0" * 64), "other samples or labels than the server's"),
        (with_record("junk", ArrayRecord()), "unknown records: 'junk'"),
        (fails("A" * 10**6), "error 2: AAA"),
    ],
)
def test_a_lie_about_itself_keeps_only_the_liar_out(
    lie: Lie, why: str, tmp_path: Path
) -> None:
    run(tmp_path, lying(on_query=lie))
    [facts] = tmp_path.glob("*/run.json")
    assert facts.stat().st_size < 20_000
    said = json.loads(facts.read_text())
    [(_, reason)] = said["refused"].items()
    assert re.search(why, reason)
    assert len(said["clients"]) == CLIENTS - 1


def test_held_out_samples_beyond_what_was_said_are_no_measure(tmp_path: Path) -> None:
    def lie(reply: Message) -> None:
        """Claim a million right answers: they would be the recall of the fleet."""
        report = reply.content.config_records[wire.REPORT]
        counts: Any = report["local-counts"]
        report["local-counts"] = [10**6, *[0] * (len(counts) - 1)]
        report["client-local"] = 1.0

    for record in run(tmp_path, lying(lie), **{"eval-every": 1}):
        said = "local-counts are of 1000000 samples, but it said that it holds out "
        assert record["rejected"]["client-0"].startswith(said)
        assert record["client_local_weighted"] < 0.9


def test_a_device_whose_data_grew_is_asked_again_and_then_counts(
    tmp_path: Path,
) -> None:
    queries = 0

    def small_at_first(reply: Message) -> None:
        nonlocal queries
        queries += 1
        if queries == 1:
            says(num_examples=3)(reply)

    rounds = run(tmp_path, lying(on_query=small_at_first), **{"num-rounds": 3})
    reasons = [record["rejected"].get("client-0", "") for record in rounds]
    assert "but it said that it has 3" in reasons[0]
    assert reasons[1:] == ["", ""]


def test_a_reply_that_cannot_be_merged_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = FlexMoE.merge

    def fails_half_way(self: FlexMoE, reply: Reply) -> None:
        merge(self, reply)
        if reply.client == LIAR:
            raise KeyError("no such expert")

    absent = run(tmp_path / "absent", lying(says(server_round=0)))
    monkeypatch.setattr(FlexMoE, "merge", fails_half_way)
    half = run(tmp_path / "half", lying())
    for record, expected in zip(half, absent, strict=True):
        assert "cannot be merged: KeyError" in record["rejected"]["client-0"]
        assert record["load"] == expected["load"]
    first, second = (
        next((tmp_path / name).glob("*/model.safetensors")).read_bytes()
        for name in ("absent", "half")
    )
    assert first == second


def test_a_strategy_that_can_merge_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: FlexMoE, reply: Reply) -> None:
        raise KeyError("a bug of the strategy")

    monkeypatch.setattr(FlexMoE, "merge", broken)
    with pytest.raises(KeyError, match="a bug of the strategy"):
        run(tmp_path, lying())
