"""Peak memory of a device's process by experts held, beside what the budget predicts.

    python -m benchmarks.device_memory [--repeat N]

Every number comes from a process of its own that does what Flower's ``flwr-clientapp``
does with one message: it inflates it from bytes, calls the ClientApp, deflates the
reply. The prediction is the server's own (``server_app.fleet.budget``), from what such
a process answered to the query. The peak is the kernel's (VmHWM).
"""

import argparse
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict

from common import wire
from common.flower_internals import (
    TaskIdentity,
    get_all_nested_objects,
    inflate_object_from_contents,
)
from common.parts import part_of_model
from common.settings import Settings
from common.shape import dataset_of, model_spec, ordered_spec
from server_app.fleet.budget import DeviceBudget
from server_app.strategies import find_strategy
from server_app.strategies.base import ExpertStrategy

HELD = (1, 2, 4, 8)
NODE: dict[str, bool | float | int | str] = {
    "name": "bench",
    "partition-id": 0,
    "num-partitions": 4,
}
SEED = 1
LARGE = {"expert-hidden": 100_000}
CASES: dict[str, dict[str, Any]] = {
    "digits, mlp, 6 MB experts": {"expert-hidden": 20_000},
    "digits, mlp, soft routing": {"expert-hidden": 20_000, "top-k": 0},
    "32x32 colour, cnn, 11 MB experts": {
        "expert-hidden": 20_000,
        "backbone": "cnn",
        "dataset": "noise",
    },
    "digits, mlp of 31 MB, fedavg": LARGE | {"strategy": "fedavg"},
    "the same, fedprox": LARGE | {"strategy": "fedprox"},
    "the same, ditto": LARGE | {"strategy": "ditto"},
    "the same, apfl": LARGE | {"strategy": "apfl"},
    "the same, fedavg-ft": LARGE | {"strategy": "fedavg-ft"},
    "the same, fedrep": LARGE | {"strategy": "fedrep"},
    "the same, ifca, 2 clusters": LARGE
    | {"strategy": "ifca", "strategy-options": "clusters=2"},
    "the same, ifca, 4 clusters": LARGE | {"strategy": "ifca"},
    "the same, heterofl at a half": LARGE | {"strategy": "heterofl"},
    "32x32 colour, resnet18, 41 MB experts": {
        "expert-hidden": 20_000,
        "backbone": "resnet18",
        "dataset": "noise",
        "train-samples": 64,
        "test-samples": 256,
    },
}


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1, metavar="N")
    parser.add_argument("--case", default="", help="only cases with this in their name")
    parser.add_argument(
        "--held", type=int, nargs="+", default=HELD, metavar="N", choices=range(1, 9)
    )
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        answer(*map(Path, args.worker))
        return
    print(f"{'':<40} {'held':>4} {'measured MiB':>16} {'predicted':>9} {'ratio':>6}")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder))
        for name, case in CASES.items():
            if args.case in name:
                worst = max(worst, measure(name, case, Path(folder), args))
    print(f"largest error of the prediction: {worst:.1%}")


def measure(
    name: str, case: Mapping[str, Any], folder: Path, args: argparse.Namespace
) -> float:
    """Print one case; return its largest relative error."""
    config = {
        "num-experts": max(HELD),
        "local-epochs": 1,
        "data-dir": str(folder),
        "train-samples": 400,
        **case,
    }
    settings = Settings.from_run_config(config)
    cls = find_strategy(settings.run.strategy)
    strategy = cls(settings, model_spec(settings, dataset_of(settings)))
    told = [ask(folder, config, RecordDict(), "query") for _ in range(args.repeat)]
    profile = wire.decode_query_reply(told[0][0].content)
    budget = DeviceBudget(
        settings,
        strategy.spec,
        strategy.max_budget,
        method=strategy.method,
        private_parts=strategy.private_parts,
        widths=strategy.widths,
    )
    predicted = budget.memory(profile) / 2**20
    worst = 0.0
    for held in args.held[: strategy.max_budget]:
        content = ordered(strategy, held, server_round=2)
        if strategy.method.keeps:
            state = folder / f"state-{settings.run.strategy}-{held}"
            config["state-dir"] = str(state)
            ask(folder, config, ordered(strategy, held, server_round=1), "train")
        peaks = [ask(folder, config, content, "train")[1] for _ in range(args.repeat)]
        typical = statistics.median(peaks) / 2**20
        ratio = predicted[held - 1] / typical
        worst = max(worst, abs(ratio - 1))
        spread = f"{typical:.0f} ±{(max(peaks) - min(peaks)) / 2**21:.0f}"
        columns = f"{spread:>16} {predicted[held - 1]:>9.0f} {ratio:6.3f}"
        print(f"{name:<40} {held:>4} {columns}", flush=True)
        name = ""
    return worst


def ordered(strategy: ExpertStrategy, held: int, server_round: int) -> RecordDict:
    """Return the order of a strategy for a device with this budget."""
    spec, width = strategy.spec, 1.0
    if strategy.widths:
        held, width = 1, strategy.widths[held - 1]
    order = wire.TrainOrder(
        run="bench",
        server_round=server_round,
        experts=list(range(held)),
        num_experts=spec.num_experts,
        top_k=spec.top_k,
        mixes=spec.mixes,
        gate=strategy.gate,
        width=width,
        evaluate=True,
        private_parts=strategy.private_parts,
        **asdict(strategy.method),
    )
    parts = ordered_spec(spec, order).initial(SEED, order.shared_parts())
    vectors = {
        part_of_model(name, number): vector
        for name, vector in parts.items()
        for number in range(order.candidates)
    }
    return wire.encode_order(order, wire.pack(vectors))


def ask(
    folder: Path, config: Mapping[str, Any], content: RecordDict, kind: str
) -> tuple[Message, int]:
    """Let a fresh process answer one message; return its reply and its peak."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
    message = Message(content, 1, kind)
    question, reply = folder / "question", folder / "answer"
    question.write_bytes(pickle.dumps((deflated(message), message.object_id, config)))
    command = [sys.executable, "-m", "benchmarks.device_memory"]
    subprocess.run([*command, "--worker", str(question), str(reply)], check=True)
    objects, object_id, peak = pickle.loads(reply.read_bytes())
    return inflated(objects, object_id), peak


def answer(question: Path, reply_file: Path) -> None:
    """Be the device's process for one message."""
    from client_app.app import app
    from client_app.device.profiler import peak_bytes

    objects, object_id, config = pickle.loads(question.read_bytes())
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    message = inflated(objects, object_id)
    del objects
    message.metadata.__dict__["_message_id"] = object_id
    context = Context(
        run_id=1, node_id=1, node_config=NODE, state=RecordDict(), run_config=config
    )
    reply = app(message=message, context=context)
    if reply.has_error():
        sys.exit(reply.error.reason)
    sent = deflated(reply)
    peak = peak_bytes()
    reply_file.write_bytes(pickle.dumps((sent, reply.object_id, peak)))


def deflated(message: Message) -> dict[str, bytes]:
    """Return a message as the objects that travel."""
    return {
        key: item.deflate() for key, item in get_all_nested_objects(message).items()
    }


def inflated(objects: dict[str, bytes], object_id: str) -> Message:
    """Return the message from its objects."""
    message = inflate_object_from_contents(object_id, objects)
    assert isinstance(message, Message)
    return message


def write_noise(folder: Path) -> None:
    """Write ``noise.npz``: the shapes of CIFAR-10, and nothing to learn."""
    rng = np.random.default_rng(0)
    np.savez(
        folder / "noise.npz",
        x_train=rng.integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8),
        y_train=rng.integers(0, 10, 2000),
        x_test=rng.integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8),
        y_test=rng.integers(0, 10, 2000),
    )


if __name__ == "__main__":
    main()
