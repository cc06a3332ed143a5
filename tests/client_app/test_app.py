"""The ClientApp through its messages: what leaves a client, and what never does."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from client_app.app import app
from client_app.session import Session
from common import wire
from common.code_hash import code_hash
from common.inline_grid import InlineGrid
from common.moe import MLPExpert, ModelSpec, Vector
from common.settings import Settings
from common.shape import dataset_of, model_spec
from common.wire import TrainOrder

CONFIG: dict[str, Any] = {"local-epochs": 1, "dataset": "digits", "seed": 3}


@pytest.fixture
def grid() -> InlineGrid:
    return InlineGrid(app, 4, CONFIG)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    settings = Settings.from_run_config(CONFIG)
    return model_spec(settings, dataset_of(settings))


def order_of(server_round: int, experts: list[int], **changes: Any) -> TrainOrder:
    fields: dict[str, Any] = {
        "run": "r",
        "server_round": server_round,
        "experts": experts,
        "num_experts": 8,
        "top_k": 1,
    }
    return TrainOrder(**{**fields, **changes})


def ask(
    grid: InlineGrid, spec: ModelSpec, node: int, order: TrainOrder
) -> tuple[wire.TrainReport, dict[str, Vector], Message]:
    parts = ["extractor", *(f"expert.{e}" for e in order.experts)]
    vectors = spec.initial(3, parts)
    content = wire.encode_order(order, wire.pack(vectors))
    [reply] = grid.send_and_receive([Message(content, node, "train")])
    assert not reply.has_error(), reply.error.reason
    return (*wire.decode_report(reply.content), reply)


def gate_of(grid: InlineGrid, node: int) -> Vector:
    assert not grid.contexts[node].state.array_records
    [(key, record)] = grid.contexts[node].state.config_records.items()
    assert key == "store/r"
    rounds = [n.removesuffix(".npy") for n in record if n.startswith("gate-")]
    newest = max(rounds, key=lambda name: int(name.removeprefix("gate-")))
    gate: Vector = np.load(BytesIO(record[f"{newest}.npy"]))  # type: ignore[arg-type]
    return gate


def test_a_ping_is_answered_with_nothing(grid: InlineGrid) -> None:
    [reply] = grid.send_and_receive([Message(RecordDict(), 2, "query.ping")])
    assert not reply.has_error() and not reply.content


def test_query_says_who_and_what(grid: InlineGrid) -> None:
    [reply] = grid.send_and_receive([Message(RecordDict(), 2, "query")])
    profile = wire.decode_query_reply(reply.content)
    assert profile.client == "client-1"
    assert profile.code_hash == code_hash()
    assert profile.num_examples > 0
    # A virtual client has no machine of its own to speak of.
    assert profile.memory_available is None and profile.flops_per_second == 0


def test_a_device_says_what_it_has(grid: InlineGrid, tmp_path: Path) -> None:
    own: dict[str, bool | float | int | str] = {
        "name": "pi0",
        "memory-bytes": 10**9,
        "state-dir": str(tmp_path),
    }
    grid.contexts[2].node_config.update(own)
    query = Message(RecordDict(), 2, "query")
    [first] = grid.send_and_receive([query])
    profile = wire.decode_query_reply(first.content)
    assert profile.client == "pi0"
    assert profile.memory_bytes == 10**9
    assert profile.memory_available is not None and profile.process_bytes is not None
    assert profile.process_bytes > 10**7 and profile.memory_available <= 10**9
    assert profile.flops_per_second > 0 and profile.disk_free
    # The speed is measured once; what was kept is what is reported again.
    [again] = grid.send_and_receive([Message(RecordDict(), 2, "query")])
    second = wire.decode_query_reply(again.content)
    assert second.flops_per_second == profile.flops_per_second


def test_a_device_reports_its_memory_with_every_round(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    grid.contexts[2].node_config["memory-bytes"] = 10**9
    report, _, _ = ask(grid, spec, 2, order_of(1, [2, 5]))
    assert report.memory_peak and report.memory_available
    report, _, _ = ask(grid, spec, 1, order_of(1, [2, 5]))
    assert report.memory_peak is None and report.memory_available is None


def test_only_held_experts_are_ever_allocated(
    grid: InlineGrid, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[MLPExpert] = []
    original = MLPExpert.__init__

    def remembered(self: MLPExpert, *args: Any, **options: Any) -> None:
        built.append(self)
        original(self, *args, **options)

    order = order_of(1, [2, 5], evaluate=True)
    ask(grid, spec, 1, order)  # builds what a process measures of a model once
    monkeypatch.setattr(MLPExpert, "__init__", remembered)
    ask(grid, spec, 1, order)
    # ``ask`` itself builds the whole mixture to take the experts it sends from it.
    assert len(built) == spec.num_experts + 2


def test_only_ordered_experts_come_back(grid: InlineGrid, spec: ModelSpec) -> None:
    order = order_of(1, [2, 5], evaluate=True)
    report, deltas, _ = ask(grid, spec, 1, order)
    assert set(deltas) == {"extractor", "expert.2", "expert.5"}
    assert sum(report.expert_samples) == report.num_examples
    assert report.client_global is not None and 0 <= report.client_global <= 1
    sizes = {name: spec.size(name) for name in deltas}
    wire.check_report(order, report, deltas, sizes, num_classes=spec.num_classes)


def test_no_byte_of_the_gate_is_in_any_message(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    for server_round in (1, 2):
        _, _, reply = ask(grid, spec, 1, order_of(server_round, [2, 5], evaluate=True))
        gate = gate_of(grid, 1)
        initial = spec.initial(3, ["gate"])["gate"]
        assert not np.array_equal(gate, initial), "the gate was trained"
        sent = b"".join(
            item.deflate() for item in get_all_nested_objects(reply).values()
        )
        # Any four consecutive weights of the gate, or of its change, would be found.
        for secret in (gate, gate - initial):
            data = secret.tobytes()
            for start in range(0, len(data) - 16, 4):
                assert data[start : start + 16] not in sent


def test_the_gate_survives_rounds_and_is_not_shared_between_clients(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    # Both virtual clients run in this one process, as in a Ray worker.
    _, alone, _ = ask(InlineGrid(app, 4, CONFIG), spec, 2, order_of(2, [2, 5]))
    ask(grid, spec, 1, order_of(1, [2, 5]))
    first = gate_of(grid, 1)
    _, beside, _ = ask(grid, spec, 2, order_of(2, [2, 5]))
    assert not np.array_equal(first, gate_of(grid, 2))
    for name in alone:
        np.testing.assert_array_equal(alone[name], beside[name])
    _, second_round, _ = ask(grid, spec, 1, order_of(2, [2, 5]))
    _, fresh, _ = ask(InlineGrid(app, 4, CONFIG), spec, 1, order_of(2, [2, 5]))
    assert not np.array_equal(second_round["extractor"], fresh["extractor"])


def test_state_dir_keeps_the_gate_on_disk(tmp_path: Path, spec: ModelSpec) -> None:
    config = {**CONFIG, "state-dir": str(tmp_path)}
    ask(InlineGrid(app, 4, config), spec, 1, order_of(1, [2, 5]))
    assert [p.name for p in tmp_path.rglob("*.npy")] == ["gate-1.npy"]
    # Another process of the same device goes on where the first one stopped.
    _, resumed, _ = ask(InlineGrid(app, 4, config), spec, 1, order_of(2, [2, 5]))
    grid = InlineGrid(app, 4, CONFIG)
    ask(grid, spec, 1, order_of(1, [2, 5]))
    _, expected, _ = ask(grid, spec, 1, order_of(2, [2, 5]))
    for name in expected:
        np.testing.assert_array_equal(resumed[name], expected[name])


def test_the_same_order_gives_the_same_bits(grid: InlineGrid, spec: ModelSpec) -> None:
    _, first, _ = ask(grid, spec, 3, order_of(1, [0, 7]))
    _, second, _ = ask(InlineGrid(app, 4, CONFIG), spec, 3, order_of(1, [0, 7]))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_serialised_messages_change_nothing(grid: InlineGrid, spec: ModelSpec) -> None:
    _, plain, _ = ask(grid, spec, 1, order_of(1, [1, 2]))
    bytewise = InlineGrid(app, 4, CONFIG, serialise=True)
    _, wired, _ = ask(bytewise, spec, 1, order_of(1, [1, 2]))
    for name in plain:
        np.testing.assert_array_equal(plain[name], wired[name])


def test_a_malformed_order_is_an_error_reply(grid: InlineGrid) -> None:
    content = RecordDict({wire.ORDER: ConfigRecord({"protocol": 99})})
    [reply] = grid.send_and_receive([Message(content, 1, "train")])
    assert reply.has_error()
    assert "protocol" in (reply.error.reason or "")


def test_flowers_own_strategies_get_the_dense_model(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    vectors = spec.dense().initial(3, ["extractor", "expert.0"])
    content = wire.encode_flower_reply(vectors, {})
    del content[wire.METRICS]
    content["config"] = ConfigRecord({"server-round": 1})
    [reply] = grid.send_and_receive([Message(content, 1, "train")])
    assert not reply.has_error(), reply.error.reason
    received = wire.decode_flower_arrays(reply.content)
    assert set(received) == {"extractor", "expert.0"}
    assert not np.array_equal(received["expert.0"], vectors["expert.0"])
    [metrics] = reply.content.metric_records.values()
    assert set(metrics) == {
        "num-examples",
        "train-loss",
        "client-local",
        "client-global",
    }


def test_a_client_that_keeps_nothing_uses_what_it_received(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    # One expert: whatever its gate has learned, there is nothing to choose from.
    plain, deltas, _ = ask(grid, spec, 1, order_of(1, [2], evaluate=True))
    kept, again, _ = ask(grid, spec, 1, order_of(1, [2], evaluate=True, keep_share=0.0))
    untrained, _, _ = ask(grid, spec, 1, order_of(1, [2], evaluate=True, train=False))
    assert kept.client_global == untrained.client_global != plain.client_global
    assert kept.client_local == untrained.client_local
    for name, delta in deltas.items():
        np.testing.assert_array_equal(again[name], delta)
    all_of_it = order_of(1, [2], evaluate=True, keep_share=1.0)
    whole, _, _ = ask(grid, spec, 1, all_of_it)
    assert whole.client_local == pytest.approx(plain.client_local, abs=0.01)


def test_label_frequencies_help_on_own_samples_only(
    grid: InlineGrid, spec: ModelSpec
) -> None:
    plain, _, _ = ask(grid, spec, 1, order_of(1, [0], evaluate=True))
    sure, _, _ = ask(grid, spec, 1, order_of(1, [0], evaluate=True, label_prior=1000.0))
    assert sure.client_global == plain.client_global
    # With that weight it always answers with the label it has seen most.
    context = grid.contexts[1]
    data = Session(context).data
    favourite = np.bincount(data.y_train).argmax()
    assert sure.client_local == pytest.approx(np.mean(data.y_held_out == favourite))


@pytest.mark.parametrize("flower", [False, True])
def test_a_training_that_diverges_is_one_line_and_keeps_nothing(
    tmp_path: Path, spec: ModelSpec, flower: bool
) -> None:
    config = {**CONFIG, "state-dir": str(tmp_path), "lr": 1e4, "upload-dtype": "int8"}
    if flower:
        spec = spec.dense()
    vectors = spec.initial(3, ["extractor", "expert.0"])
    order = order_of(1, [0], upload_dtype="int8")
    content = wire.encode_order(order, wire.pack(vectors))
    if flower:
        del content[wire.ORDER]
    [reply] = InlineGrid(app, 4, config).send_and_receive(
        [Message(content, 1, "train")]
    )
    assert reply.has_error()
    assert (reply.error.reason or "").splitlines()[0] == (
        "FloatingPointError: training diverged, its loss is nan: try an lr below 10000"
    )
    kept = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert kept == ([] if flower else ["attempts"])
