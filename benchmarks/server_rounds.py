"""What a round costs the server, part by part, with 20, 100 and 1 000 clients.

``python -m benchmarks.server_rounds`` runs the real round loop (FLEX-MoE, run log and
checkpoints included) against clients that answer at once with the same deltas, and
prints the median CPU milliseconds a round spends in each step, over the rounds after
the first.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from flwr.app import Array, Context, Message
from flwr.clientapp import ClientApp

from common import wire
from common.code_hash import code_hash
from common.data import Fingerprint
from common.inline_grid import InlineGrid
from common.moe import ModelSpec
from common.settings import Settings
from common.task import task_from_json
from server_app.callbacks.runlog import RunLog
from server_app.rounds import intake, train_exchange
from server_app.rounds.loop import RoundLoop
from server_app.run_folder.folder import RunFolder
from server_app.strategies import flex_moe
from server_app.strategies.flex_moe import FlexMoE

DTYPES = ("float32", "float16", "int8")

STEPS: tuple[tuple[str, Any, str], ...] = (
    ("solve", flex_moe, "solve_every_layer"),
    ("plan", FlexMoE, "plan"),
    ("orders", train_exchange, "orders_of"),
    ("decode", intake, "read"),
    ("check", intake, "check"),
    ("merge", FlexMoE, "merge"),
    ("finish", FlexMoE, "finish"),
    ("learn", FlexMoE, "learn"),
    ("log", RunLog, "show"),
    ("line, checkpoint", RunFolder, "keep"),
)
"""Plan holds solve; the table takes what is inside off."""

NO_DATA = Fingerprint("", "")
"""Of clients that do not say which data set they have a share of."""


def fake_clients(spec: ModelSpec, data: Fingerprint = NO_DATA) -> ClientApp:
    """Return clients that answer at once.

    Parameters
    ----------
    spec : ModelSpec
    data : Fingerprint
        Of the data set that they say they have a share of.
    """
    app = ClientApp()
    layouts = {name: spec.layout(name) for name in spec.part_names()}
    packed: dict[str, dict[str, Array]] = {}

    def deltas(order: wire.TrainOrder) -> dict[str, Array]:
        if order.upload_dtype not in packed:
            packing = wire.Packing(dtype=order.upload_dtype, layouts=layouts)
            values = {
                name: np.full(spec.size(name), 1e-3, np.float32) for name in layouts
            }
            packed[order.upload_dtype] = wire.pack(values, packing)
        mine = packed[order.upload_dtype]
        return {name: mine[name] for name in order.returned_parts()}

    @app.query()
    def query(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        asked = wire.decode_query(message.content)
        digest = task_from_json(asked.task).digest if asked else ""
        reply = wire.QueryReply(
            client=f"client-{number}",
            partition_id=number,
            num_partitions=int(context.node_config["num-partitions"]),
            num_examples=100,
            code_hash=code_hash(),
            partition_hash="0",
            data_hash=data.train,
            test_hash=data.test,
            task_hash=digest,
        )
        return Message(wire.encode_query_reply(reply), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        order = wire.decode_order(message.content)
        number = int(context.node_config["partition-id"])
        # Equal answers would make every assignment as good: no case for a solver.
        scores = [
            (17 * number + 31 * e + 7 * order.server_round) % 97 for e in order.experts
        ]
        report = wire.TrainReport(
            server_round=order.server_round,
            client=f"client-{number}",
            code_hash=code_hash(),
            num_examples=100,
            expert_samples=[50] * len(order.experts),
            expert_accuracy=[score / 97 for score in scores],
            expert_loss=[1.0] * len(order.experts),
        )
        return Message(wire.encode_report(report, deltas(order)), reply_to=message)

    return app


def measure(
    clients: int, experts: int, rounds: int, config: dict[str, Any]
) -> dict[str, list[float]]:
    """Return the milliseconds of every step in every round after the first."""
    spent: dict[str, float] = defaultdict(float)
    measured: dict[str, list[float]] = defaultdict(list)
    originals: list[tuple[Any, str, Callable[..., Any]]] = []

    def timed(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[label] += 1e3 * (time.process_time() - started)

        return call

    for label, owner, name in STEPS:
        function = getattr(owner, name)
        originals.append((owner, name, function))
        setattr(owner, name, timed(label, function))
    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings.from_run_config(
                {
                    "num-rounds": rounds,
                    "num-experts": experts,
                    "output-dir": folder,
                    **config,
                }
            )
            spec = ModelSpec(
                backbone="cnn",
                input_shape=(3, 32, 32),
                num_classes=10,
                num_experts=experts,
                expert_hidden=settings.model.expert_hidden,
                top_k=1,
            )
            strategy = FlexMoE(settings, spec)
            grid = InlineGrid(fake_clients(spec), clients, {})
            driver = RoundLoop(strategy)
            log = RunLog(settings)
            driver.attach(log.run, log)
            close = driver.close

            def closed(*args: Any) -> Any:
                record = close(*args)
                if record.round > 1:
                    for label, _, _ in STEPS:
                        measured[label].append(spent[label])
                    measured["round"].append(1e3 * (time.process_time() - began[0]))
                spent.clear()
                began[0] = time.process_time()
                return record

            began = [time.process_time()]
            driver.close = closed  # type: ignore[method-assign,assignment]
            driver.run(grid, rounds, 600.0, None)
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)
    return measured


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="20,100,1000")
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "float16", "int8"]
    )
    args = parser.parse_args()
    config = {
        "upload-dtype": args.dtype,
        "download-dtype": args.dtype,
        "expert-hidden": 64,
    }
    labels = [label for label, _, _ in STEPS]
    print(f"{args.experts} experts, {args.dtype}, median CPU ms a round")
    print("| clients | " + " | ".join(labels) + " | other | round |")
    print("|---" * (len(labels) + 3) + "|")
    for clients in map(int, args.clients.split(",")):
        found = measure(clients, args.experts, args.rounds, config)
        middle = {label: median(values) for label, values in found.items()}
        total = middle.pop("round")
        middle["plan"] -= middle["solve"]
        cells = " | ".join(f"{middle[label]:.1f}" for label in labels)
        other = total - sum(middle.values())
        print(f"| {clients} | {cells} | {other:.1f} | {total:.1f} |", flush=True)


if __name__ == "__main__":
    main()
