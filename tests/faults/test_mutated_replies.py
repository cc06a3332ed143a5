"""Ten thousand mutated replies: none that breaks the contract gets through.

An independent statement of the contract judges what :mod:`common.wire` lets pass.
"""

import random
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from common import wire
from common.moe import Layout
from common.wire import TrainOrder, TrainReport, WireError

MUTATIONS = 10_000
ORDER = TrainOrder(
    run="r", server_round=5, experts=[1, 4], num_experts=6, top_k=1, report_gate=True
)
LAYOUTS: dict[str, Layout] = {
    "extractor": (("weight", (2, 5)), ("bias", (2,))),
    "expert.1": (("weight", (2, 2)), ("bias", (2,))),
    "expert.4": (("weight", (2, 2)), ("bias", (2,))),
}
SIZES = {"extractor": 12, "expert.1": 6, "expert.4": 6}
REPORT = TrainReport(
    server_round=5,
    client="client-0",
    code_hash="0123456789abcdef",
    num_examples=40,
    expert_samples=[25, 15],
    expert_accuracy=[0.5, 0.75],
    expert_loss=[0.7, 0.2],
    gate_mass=[0.1, 0.3, 0.1, 0.2, 0.2, 0.1],
    responsibility=[0.6, 0.4],
    train_loss=0.5,
    client_global=0.5,
    client_local=0.9,
    metrics={"watts": 3.5, "own-loss": 0.25},
)
VALUES: list[Any] = [
    *(0, -1, 1, 2, 41, 10**6, 2**62, 0.0, -0.5, 0.5, 1.0001, 1e300),
    *(float("nan"), float("inf"), -float("inf"), "", "x", "client-0", b"\x00", True),
    *([], [0], [0, 0], [1.0, 2.0], [-1, 5], [float("nan"), 0.1], ["a"], [0.2] * 6),
]


def vector(rng: random.Random, size: int) -> np.ndarray:
    value = np.array([rng.uniform(-1, 1) for _ in range(size)], np.float32)
    if rng.random() < 0.3:
        value[rng.randrange(size)] = rng.choice([np.nan, np.inf, -np.inf, 1e38])
    return value


def mutated_array(rng: random.Random, array: Array) -> Array:
    data = bytearray(array.data)
    kind = rng.randrange(6)
    if kind == 0:  # bits of the header or of the values
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data = data[: rng.randrange(len(data))]
    elif kind == 2:
        data += bytes(rng.randrange(1, 40))
    elif kind == 3:
        return Array(
            array.numpy().astype(rng.choice([np.float64, np.int32, np.float16]))
        )
    elif kind == 4:
        return Array(array.numpy().reshape(rng.choice([(-1, 1), (1, -1), (2, -1)])))
    else:
        size = rng.choice([0, 1, array.shape[0], 13]) or 1
        if array.dtype == "uint8" and rng.random() < 0.8:
            # Any bytes of the right length: scales and exact values are floats.
            return Array(np.frombuffer(rng.randbytes(array.shape[0]), np.uint8))
        return Array(vector(rng, size))
    shape = array.shape if rng.random() < 0.7 else (rng.randrange(20),)
    stype = array.stype if rng.random() < 0.9 else "other"
    return Array(array.dtype, shape, stype, bytes(data))


def mutate(rng: random.Random, content: RecordDict) -> None:
    arrays = content.array_records[wire.ARRAYS]
    report = content.config_records[wire.REPORT]
    kind = rng.randrange(6)
    if kind <= 1:
        key = rng.choice([*report, "surprise", "metrics", "metrics.", "metrics.x y"])
        value = rng.choice(VALUES)
        try:
            report[key] = value
        except TypeError:  # Flower itself would not carry it
            return
    elif kind == 2:
        del report[rng.choice(list(report))]
    elif kind == 3:
        name = rng.choice(list(arrays))
        # An array mutated before may not be readable any more.
        with suppress(Exception):
            arrays[name] = mutated_array(rng, arrays[name])
    elif kind == 4:
        name = rng.choice(list(arrays))
        other = rng.choice(["gate", "expert.2", "expert.1", "common", "", "expert.-1"])
        arrays[other] = arrays.pop(name)
    else:
        extra = rng.choice(["gate", "expert.5", "x"])
        target = rng.choice([arrays, None])
        if target is None:
            content["more"] = ArrayRecord({extra: Array(vector(rng, 3))})
        else:
            target[extra] = Array(vector(rng, 3))


def breach(report: TrainReport, deltas: dict[str, Any]) -> str | None:
    """Say what is wrong with an accepted reply, written without looking at wire."""
    if report.protocol != 8 or report.server_round != 5:
        return "version or round"
    if set(deltas) != {"extractor", "expert.1", "expert.4"}:
        return "parts"
    for name, size in SIZES.items():
        value = deltas[name]
        if value.dtype != np.float32 or value.shape != (size,):
            return f"shape of {name}"
        if not all(abs(x) < 3.5e38 for x in struct.unpack(f"{size}f", value.tobytes())):
            return f"values of {name}"
    counts = report.expert_samples
    if len(counts) != 2 or min(counts) < 0 or sum(counts) > 2 * report.num_examples:
        return "counts"
    if report.num_examples < 1 or not report.client:
        return "who"
    shares = [
        *report.expert_accuracy,
        *report.gate_mass,
        *report.responsibility,
        report.client_global or 0,
        report.client_local or 0,
    ]
    if len(report.expert_accuracy) != 2 or not all(0 <= s <= 1 for s in shares):
        return "shares"
    losses = [*report.expert_loss, report.train_loss]
    if len(losses) != 3 or not all(0 <= loss < float("inf") for loss in losses):
        return "losses"
    if len(report.gate_mass) not in (0, 6) or len(report.responsibility) not in (0, 2):
        return "gate lists"
    if not set(report.metrics) <= {"watts", "own-loss"}:
        return "names of metrics"
    if not all(abs(value) < float("inf") for value in report.metrics.values()):
        return "metrics"
    return None


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_reply_that_breaks_the_contract_is_accepted(
    seed: int, dtype: wire.Dtype
) -> None:
    rng = random.Random(seed)
    packing = wire.Packing(dtype=dtype, layouts=LAYOUTS)
    accepted = rejected = 0
    for _ in range(MUTATIONS // 4):
        deltas = {name: np.zeros(size, np.float32) for name, size in SIZES.items()}
        content = wire.encode_report(REPORT, wire.pack(deltas, packing))
        for _ in range(rng.choice([1, 1, 2, 3])):
            mutate(rng, content)
        try:
            report, received = wire.decode_report(content, packing)
            wire.check_report(ORDER, report, received, SIZES)
        except WireError as error:
            assert "\n" not in str(error)
            rejected += 1
            continue
        accepted += 1
        assert (problem := breach(report, received)) is None, problem
    # The fuzzer reaches both sides of the door.
    assert accepted > 100
    assert rejected > 1000
