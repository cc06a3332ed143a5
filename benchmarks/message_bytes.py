"""Bytes of one client in one round against stock FedAvg, by backbone and encoding.

``python -m benchmarks.message_bytes`` builds the messages themselves, an order and a
reply for a client that holds 2 of 8 experts, and the two of Flower's FedAvg that ships
the whole mixture (``benchmarks/stock_fedavg``), and counts what is in them.
"""

import argparse
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from common import wire
from common.code_hash import code_hash
from common.moe import EXTRACTOR, ModelSpec, expert_part
from common.wire import Packing, TrainOrder, TrainReport

HELD, EXPERTS = [1, 5], 8
DTYPES: tuple[wire.Dtype, ...] = ("float32", "float16", "int8")
IMAGES = (3, 32, 32)


def nbytes(content: RecordDict) -> int:
    """Return what :func:`common.wire.message_bytes` counts."""
    arrays = content.array_records.values()
    total = sum(len(array.data) for record in arrays for array in record.values())
    others = (r for r in content.values() if not isinstance(r, ArrayRecord))
    return total + sum(len(record.deflate()) for record in others)


def ours(spec: ModelSpec, dtype: wire.Dtype) -> int:
    """Return the bytes down and up of one client."""
    parts = [EXTRACTOR, *map(expert_part, HELD)]
    packing = Packing(dtype=dtype, layouts={name: spec.layout(name) for name in parts})
    order = TrainOrder(
        run="20260101-000000-flex-moe-cifar10-s0",
        server_round=10,
        experts=HELD,
        num_experts=EXPERTS,
        top_k=1,
        evaluate=True,
        download_dtype=dtype,
        upload_dtype=dtype,
    )
    report = TrainReport(
        server_round=10,
        client="client-10",
        code_hash=code_hash(),
        num_examples=400,
        expert_samples=[200, 200],
        expert_accuracy=[0.5, 0.5],
        expert_loss=[1.5, 1.5],
        train_loss=1.5,
        client_global=0.5,
        client_local=0.5,
    )
    model = wire.pack(spec.initial(0, parts), packing)
    rng = np.random.default_rng(0)
    deltas = wire.pack(spec.initial(1, parts), packing, rng)
    return nbytes(wire.encode_order(order, model)) + nbytes(
        wire.encode_report(report, deltas)
    )


def stock(spec: ModelSpec) -> int:
    """Return the same of Flower's FedAvg with every tensor of the mixture."""
    state = spec.build(range(EXPERTS)).state_dict()
    arrays = ArrayRecord({name: Array(value.numpy()) for name, value in state.items()})
    metrics = MetricRecord({"num-examples": 400})
    up = RecordDict({"arrays": arrays, "metrics": metrics})
    return nbytes(RecordDict({"arrays": arrays})) + nbytes(up)


def hidden_for(spec_of: Callable[[int], ModelSpec], share: float) -> int:
    """Return the least power of two with which experts are ``share`` of the model."""
    hidden = 16
    while expert_share(spec_of(hidden)) < share:
        hidden *= 2
    return hidden


def expert_share(spec: ModelSpec) -> float:
    """Return the experts' share of all parameters."""
    sizes = {name: spec.size(name) for name in spec.part_names()}
    return 1 - (sizes["extractor"] + sizes["gate"]) / sum(sizes.values())


def main() -> None:
    """Print one line per backbone and width of the experts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.85)
    args = parser.parse_args()
    print("k = 2 of 8 experts, 3x32x32 inputs (digits: 1x8x8), 10 classes, down + up\n")
    print(
        "| backbone | expert-hidden | experts' share | stock MB | " + " | ".join(DTYPES)
    )
    print("|---" * (4 + len(DTYPES)) + "|")
    for backbone, shape in [
        *((name, IMAGES) for name in ("mlp", "cnn", "resnet8", "resnet18")),
        ("mlp", (1, 8, 8)),
    ]:

        def spec_of(
            hidden: int, backbone: str = backbone, shape: tuple[int, ...] = shape
        ) -> ModelSpec:
            return ModelSpec(
                backbone=backbone,
                input_shape=shape,
                num_classes=10,
                num_experts=EXPERTS,
                expert_hidden=hidden,
                top_k=1,
            )

        for hidden in (32, hidden_for(spec_of, args.share)):
            spec = spec_of(hidden)
            whole = stock(spec)
            shares = [f"{100 * ours(spec, dtype) / whole:.1f} %" for dtype in DTYPES]
            name = backbone if shape == IMAGES else f"{backbone}, digits"
            print(
                f"| {name} | {hidden} | {100 * expert_share(spec):.0f} % | "
                f"{whole / 1e6:.2f} | " + " | ".join(shares) + " |"
            )


if __name__ == "__main__":
    main()
