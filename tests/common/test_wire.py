"""The contract: what is accepted, what is refused and with which reason."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from common import wire
from common.wire import TrainOrder, TrainReport, WireError

ORDER = TrainOrder(
    run="r", server_round=3, experts=[1, 4], num_experts=8, top_k=1, evaluate=True
)
SIZES = {"extractor": 4, "expert.1": 2, "expert.4": 2}


def report(**changes: Any) -> TrainReport:
    fields: dict[str, Any] = {
        "server_round": 3,
        "client": "client-0",
        "code_hash": "abc",
        "num_examples": 10,
        "expert_samples": [6, 4],
        "expert_accuracy": [0.5, 1.0],
        "expert_loss": [0.7, 0.1],
    }
    return TrainReport(**{**fields, **changes})


def deltas() -> dict[str, Any]:
    return {name: np.zeros(size, np.float32) for name, size in SIZES.items()}


def test_an_order_survives_the_wire() -> None:
    vectors = {"extractor": np.arange(4, dtype=np.float32)}
    content = wire.encode_order(
        ORDER, {name: wire.pack_array(vector) for name, vector in vectors.items()}
    )
    order, received = wire.decode_order(content)
    assert order == ORDER
    np.testing.assert_array_equal(received["extractor"], [0, 1, 2, 3])


def test_a_report_survives_the_wire() -> None:
    content = wire.encode_report(report(client_local=0.25), deltas())
    received, vectors = wire.decode_report(content)
    assert received == report(client_local=0.25)
    assert received.client_global is None
    assert set(vectors) == set(SIZES)
    wire.check_report(ORDER, received, vectors, SIZES)


def test_flower_finds_one_array_record_and_one_weight() -> None:
    content = wire.encode_report(report(), deltas())
    assert len(content.array_records) == 1
    assert [dict(r) for r in content.metric_records.values()] == [{"num-examples": 10}]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("protocol", 1, "protocol"),
        ("server-round", -1, "server-round"),
        ("num-examples", -5, "num-examples"),
        ("num-examples", 2.5, "num-examples"),
        ("expert-accuracy", [0.5, 1.5], "expert-accuracy"),
        ("expert-samples", [-1, 3], "expert-samples"),
        ("expert-loss", [float("nan"), 0.0], "expert-loss"),
        ("expert-loss", [float("inf"), 0.0], "expert-loss"),
        ("client-global", 1.01, "client-global"),
        ("client", "", "client"),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_malformed_report_is_refused_by_name(
    key: str, value: object, said: str
) -> None:
    content = wire.encode_report(report(), deltas())
    content.config_records[wire.REPORT][key] = value  # type: ignore[assignment]
    with pytest.raises(WireError, match=said) as caught:
        wire.decode_report(content)
    assert "\n" not in str(caught.value)


def test_a_reply_without_a_report_is_refused() -> None:
    with pytest.raises(WireError, match="no report"):
        wire.decode_report(RecordDict())


@pytest.mark.parametrize(
    "array",
    [
        Array(np.zeros(3)),
        Array(np.zeros((2, 2), np.float32)),
        Array("float32", (3,), "numpy.ndarray", b"no array at all"),
        Array("float32", (3,), "torch", b""),
    ],
)
def test_arrays_that_are_no_flat_float32_vectors_are_refused(array: Array) -> None:
    content = wire.encode_report(report(), {})
    content[wire.ARRAYS] = ArrayRecord({"extractor": array})
    with pytest.raises(WireError, match="extractor"):
        wire.decode_report(content)


def changed(**changes: Any) -> dict[str, Any]:
    vectors = deltas() | changes
    return {name: v for name, v in vectors.items() if v is not None}


@pytest.mark.parametrize(
    ("reply", "vectors", "said"),
    [
        (report(server_round=2), deltas(), "round 2, not 3"),
        (report(), changed(**{"expert.5": np.zeros(2, np.float32)}), "never assigned"),
        (report(), changed(gate=np.zeros(2, np.float32)), "gate"),
        (report(), changed(extractor=None), "missing"),
        (report(), changed(extractor=np.zeros(5, np.float32)), "5 values, expected 4"),
        (report(), changed(extractor=np.full(4, np.nan, np.float32)), "NaN"),
        (report(expert_samples=[6]), deltas(), "one entry per ordered expert"),
        (report(expert_samples=[60, 4]), deltas(), "at most 20"),
        (report(num_examples=0, expert_samples=[0, 0]), deltas(), "at least one"),
        (report(gate_mass=[1.0]), deltas(), "gate_mass"),
    ],
)
def test_a_reply_that_does_not_fit_its_order_is_refused(
    reply: TrainReport, vectors: dict[str, Any], said: str
) -> None:
    with pytest.raises(WireError, match=said):
        wire.check_report(ORDER, reply, vectors, SIZES)


def test_message_bytes_count_arrays_and_scalars(task_identity: None) -> None:
    from flwr.app import Message

    content = wire.encode_order(
        ORDER, {"extractor": wire.pack_array(np.zeros(1000, np.float32))}
    )
    message = Message(content, 1, "train")
    # 4000 bytes of values, 128 of the .npy header, and an order of a few hundred.
    assert 4128 < wire.message_bytes(message) < 4128 + 600


def test_what_was_asked_about_the_gate_must_be_there_and_nothing_else() -> None:
    asked = {"report_gate": True, "report_information": True}
    order = ORDER.model_copy(update=asked)
    full: dict[str, Any] = {
        "gate_mass": [0.125] * 8,
        "responsibility": [0.5, 0.5],
        "input_information": [0.0] * 8,
        "label_information": [0.0] * 8,
    }
    wire.check_report(order, report(**full), deltas(), SIZES)
    for field in full:
        with pytest.raises(WireError, match=field):
            without = {**full, field: []}
            wire.check_report(order, report(**without), deltas(), SIZES)
        with pytest.raises(WireError, match=field):
            wire.check_report(ORDER, report(**{field: full[field]}), deltas(), SIZES)


def test_only_a_message_of_flowers_own_strategies_may_be_float64() -> None:
    values = np.array([1.0, 1e-3])
    content = RecordDict({"arrays": ArrayRecord({"extractor": Array(values)})})
    with pytest.raises(WireError, match="float64"):
        wire.decode_arrays(content)
    [vector] = wire.decode_arrays(content, from_flower=True).values()
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, values.astype(np.float32))
