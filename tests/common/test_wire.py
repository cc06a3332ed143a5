"""The contract: what is accepted, what is refused and with which reason."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from common import wire
from common.moe import Layout
from common.wire import Lacks, TrainOrder, TrainReport, WireError

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
    content = wire.encode_order(ORDER, wire.pack(vectors))
    assert wire.decode_order(content) == ORDER
    received = wire.unpack(wire.arrays_of(content))
    np.testing.assert_array_equal(received["extractor"], [0, 1, 2, 3])


def test_a_report_survives_the_wire() -> None:
    content = wire.encode_report(report(client_local=0.25), wire.pack(deltas()))
    received, vectors = wire.decode_report(content)
    assert received == report(client_local=0.25)
    assert received.client_global is None
    assert set(vectors) == set(SIZES)
    wire.check_report(ORDER, received, vectors, SIZES)


def test_flower_finds_one_array_record_and_one_weight() -> None:
    content = wire.encode_report(report(), wire.pack(deltas()))
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
    content = wire.encode_report(report(), wire.pack(deltas()))
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
        ORDER, wire.pack({"extractor": np.zeros(1000, np.float32)})
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


def test_layers_and_tokens_widen_what_a_reply_may_say() -> None:
    order = ORDER.model_copy(update={"report_gate": True})
    said = report(
        expert_samples=[60, 20], gate_mass=[0.125] * 16, responsibility=[0.5, 0.5]
    )
    wire.check_report(order, said, deltas(), SIZES, num_layers=2, positions=4)
    with pytest.raises(WireError, match="gate_mass must have 8"):
        wire.check_report(order, said, deltas(), SIZES, positions=4)
    with pytest.raises(WireError, match="at most 60"):
        wire.check_report(order, said, deltas(), SIZES, num_layers=2, positions=3)


def test_only_a_message_of_flowers_own_strategies_may_be_float64() -> None:
    values = np.array([1.0, 1e-3])
    content = RecordDict({"arrays": ArrayRecord({"extractor": Array(values)})})
    with pytest.raises(WireError, match="float64"):
        wire.unpack(wire.arrays_of(content))
    [vector] = wire.decode_flower_arrays(content).values()
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, values.astype(np.float32))


def test_a_client_says_what_its_cache_lacks() -> None:
    lacks = Lacks(server_round=3, client="client-0", parts=["extractor", "expert.4"])
    content = wire.encode_lacks(lacks)
    assert wire.decode_lacks(content) == lacks
    assert wire.decode_lacks(wire.encode_report(report(), {})) is None
    for key, value in (("parts", []), ("parts", ["a\nb"]), ("server-round", -1)):
        content = wire.encode_lacks(lacks)
        content.config_records["lacks"][key] = value
        with pytest.raises(WireError, match=key):
            wire.decode_lacks(content)


def test_an_order_names_a_version_for_every_part_it_leaves_out() -> None:
    with pytest.raises(ValueError, match="one entry per cached part"):
        TrainOrder(**{**ORDER.model_dump(), "cached_parts": ["extractor"]})
    with pytest.raises(ValueError, match=r"cached.versions"):
        TrainOrder(
            **{
                **ORDER.model_dump(),
                "cached_parts": ["extractor"],
                "cached_versions": ["../../../etc/psw"],
            }
        )


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_an_encoded_report_is_read_by_the_packing_of_its_order(
    dtype: wire.Dtype,
) -> None:
    layouts: dict[str, Layout] = {
        "extractor": (("weight", (2, 1)), ("bias", (2,))),
        "expert.1": (("weight", (2, 1)),),
        "expert.4": (("weight", (2, 1)),),
    }
    packing = wire.Packing(dtype=dtype, layouts=layouts)
    values = {name: np.arange(size, dtype=np.float32) for name, size in SIZES.items()}
    content = wire.encode_report(report(), wire.pack(values, packing))
    received, vectors = wire.decode_report(content, packing)
    wire.check_report(ORDER, received, vectors, SIZES)
    for name, value in values.items():
        np.testing.assert_allclose(vectors[name], value, atol=1e-3)
    with pytest.raises(WireError, match="expected a flat float32"):
        wire.decode_report(content)
    with pytest.raises(WireError, match="expected a flat uint8"):
        wire.decode_report(wire.encode_report(report(), wire.pack(values)), packing)
    wrong = wire.Packing(dtype=dtype, layouts={**layouts, "expert.4": (("w", (9, 9)),)})
    with pytest.raises(WireError, match=r"expert\.4.*bytes, expected"):
        wire.decode_report(content, wrong)


def test_equal_versions_are_equal_bits() -> None:
    first, second = np.zeros(4, np.float32), np.array([0, 0, 0, 1e-45], np.float32)
    versions = [wire.version(wire.pack({"a": v})["a"]) for v in (first, first, second)]
    assert versions[0] == versions[1] != versions[2]
