"""The contract: what is accepted, what is refused and with which reason."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict

from common import wire
from common.class_counts import most_counts
from common.moe import Layout
from common.wire import MissingParts, TrainOrder, TrainReport, WireError
from tests.common.wire.support import ORDER, SIZES, deltas, report


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
        ("protocol", 2, "protocol"),
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


def test_message_bytes_count_arrays_and_scalars(task_identity: None) -> None:
    from flwr.app import Message

    content = wire.encode_order(
        ORDER, wire.pack({"extractor": np.zeros(1000, np.float32)})
    )
    message = Message(content, 1, "train")
    # 4000 bytes of values, 128 of the .npy header, and an order of a few hundred.
    assert 4128 < wire.message_bytes(message) < 4128 + 800


def test_a_client_says_what_is_missing_from_its_cache() -> None:
    missing = MissingParts(
        server_round=3, client="client-0", parts=["extractor", "expert.4"]
    )
    content = wire.encode_missing(missing)
    assert wire.decode_missing(content) == missing
    assert wire.decode_missing(wire.encode_report(report(), {})) is None
    for key, value in (("parts", []), ("parts", ["a\nb"]), ("server-round", -1)):
        content = wire.encode_missing(missing)
        content.config_records["missing"][key] = value
        with pytest.raises(WireError, match=key):
            wire.decode_missing(content)


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


@pytest.mark.parametrize("held", [1, 64, 446, 4096])
@pytest.mark.parametrize(("layers", "classes"), [(1, 2), (3, 100), (1, 10_000)])
def test_the_largest_correct_report_fits_what_is_allowed(
    held: int, layers: int, classes: int, task_identity: None
) -> None:
    each = held * layers
    most, everyone = 10**9, 2 * each
    parts = each + 1
    largest = TrainReport(
        server_round=2**53 - 1,
        client="ü" * 100,
        code_hash="f" * 64,
        num_examples=most,
        expert_samples=[2**53 - 1] * each,
        expert_accuracy=[1 / 3] * each,
        expert_loss=[1e6 / 3] * each,
        gate_mass=[1 / 3] * everyone,
        responsibility=[1 / 3] * each,
        input_information=[0.1] * everyone,
        label_information=[0.1] * everyone,
        train_loss=1 / 3,
        client_global=1 / 3,
        client_local=1 / 3,
        seconds_train=1e9 / 3,
        seconds_total=1e9 / 3,
        memory_bytes=2**53 - 1,
        memory_available=2**53 - 1,
        memory_peak=2**53 - 1,
        expert_cap=10**6,
        holds=["f" * 16] * (wire.ROOM * (parts + 1)),
        local_counts=[10**9] * most_counts(classes),
    )
    vectors = {f"expert.{e}": np.zeros(1, np.float32) for e in range(each)}
    vectors["extractor"] = np.zeros(1, np.float32)
    content = wire.encode_report(largest, wire.pack(vectors))
    size = wire.message_bytes(Message(content, 1, "train")) - 4 * parts
    allowed = wire.most_report_bytes(each, everyone, parts, classes)
    assert size <= allowed
    # No more than a few times what is needed, whatever the order.
    assert allowed < 2 * size + 2 * wire.SCALAR_BYTES


def test_a_measurement_beyond_all_measure_counts_as_its_limit() -> None:
    report = TrainReport(
        server_round=1,
        client="c",
        code_hash="",
        num_examples=1,
        expert_samples=[1],
        expert_accuracy=[0.0],
        expert_loss=[1e308],
        train_loss=2.5,
        seconds_total=1e308,
    )
    assert report.expert_loss == [1e6]
    assert report.train_loss == 2.5
    assert report.seconds_total == 1e9
    with pytest.raises(WireError, match="train-loss is inf"):
        TrainReport(**{**report.model_dump(), "train_loss": float("inf")})


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("<class 'OSError'>:<'power cut'>", "error 2: OSError: power cut"),
        (
            "<class 'common.wire.payloads.WireError'>:<'TrainOrder: no'>",
            "error 2: WireError: TrainOrder: no",
        ),
        # Flower's simulation: Ray's traceback, then the ClientApp's own words.
        (
            "<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'\x1b[36mray::"
            "ClientAppActor.run()\x1b[39m (pid=7)\nValueError: diverged\n\nThe above "
            "exception was the direct cause of the following exception:\n\n"
            "flwr.clientapp.client_app.ClientAppException: \n"
            "Exception ClientAppException occurred. Message: diverged: lower lr'>",
            "error 2: diverged: lower lr",
        ),
        ("plain words\nmore", "error 2: plain words"),
        (None, "error 2: no reason given"),
        ("<class 'X'>:<'" + "y" * 10**6, "error 2: <class 'X'>:<'yyy"),
    ],
)
def test_an_error_is_told_by_what_the_client_said(
    reason: str | None, said: str, task_identity: None
) -> None:
    message = Message(Error(2, reason), reply_to=Message(RecordDict(), 1, "train"))
    told = wire.error_of(message)
    assert told.startswith(said) and "\n" not in told and len(told) < 320
