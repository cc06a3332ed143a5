"""What one and two clients that attack do to a run, with and without each protection.

``python -m benchmarks.attacks`` trains FLEX-MoE on digits in this process, with the
attacks below and each protection alone and together, and prints the accuracy of the
server's predictor after the last round: the mean over seeds and the spread. The column
without an attacker is what a protection costs an honest fleet.

An attacker attacks in every round, but for ``one reply``. Where an attack is a claim, a
flipped change goes along, as there is no harm in a claim alone; the flip is of a size
that the default bound lets pass.
"""

import argparse
import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from flwr.app import Array, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app.app import app as honest_app
from client_app.sample_tensors import Tensors
from client_app.session import Session
from common import wire
from common.inline_grid import InlineGrid
from server_app.app import app as server_app

CLAIMED = 10**9
"""The most that a client may say: 10^12 is refused when it introduces itself."""
OFF: dict[str, Any] = {"norm-bound": 0.0, "max-weight": 0.0, "on-collapse": "go-on"}
BOUNDS: dict[str, Any] = {"norm-bound": 2.0, "max-weight": 1.0}
ROBUST: dict[str, Any] = {"merging": "median", "min-holders": 3}
SERVER: dict[str, Any] = {"fitness-from": "server", "reserved-samples": 100}
PROTECTIONS: dict[str, dict[str, Any]] = {
    "none": OFF,
    "norm-bound=2 max-weight=1": BOUNDS,
    "defaults": {},
    "median, min-holders=3": {**OFF, **ROBUST},
    "roll-back": {**OFF, "on-collapse": "roll-back"},
    "norm-bound=2": {**OFF, "norm-bound": 2.0},
    "max-weight=1": {**OFF, "max-weight": 1.0},
    "fitness-from=server": {**OFF, **SERVER},
    "bounds, median, min-holders=3": {**BOUNDS, **ROBUST},
    "median, expert-choice=fitness": {
        **OFF,
        "merging": "median",
        "expert-choice": "fitness",
    },
}
"""Settings of each; with "none" all that is on by default is off."""


def flipped(content: RecordDict, times: float) -> None:
    """Turn every change around."""
    arrays = content.array_records[wire.ARRAYS]
    for name in list(arrays):
        arrays[name] = Array((-times * arrays[name].numpy()).astype(np.float32))


def sign_flip(content: RecordDict, server_round: int) -> None:
    """Send ten times the opposite."""
    flipped(content, 10.0)


def claim(content: RecordDict, server_round: int) -> None:
    """Send the opposite, of a great many samples."""
    flipped(content, 1.0)
    report: Any = content.config_records[wire.REPORT]
    report["num-examples"] = CLAIMED // 2
    report["expert-samples"] = [CLAIMED // 2] * len(report["expert-samples"])


def hoard(content: RecordDict, server_round: int) -> None:
    """Send five times the opposite, and claim one expert as always right."""
    flipped(content, 5.0)
    report: Any = content.config_records[wire.REPORT]
    others = len(report["expert-samples"]) - 1
    report["expert-samples"] = [report["num-examples"]] + [0] * others
    report["expert-accuracy"] = [1.0] + [0.0] * others
    report["expert-loss"] = [0.0] + [0.0] * others


def one_reply(content: RecordDict, server_round: int) -> None:
    """Send 1.0 as every value in round 3, and be honest in all others."""
    arrays = content.array_records[wire.ARRAYS]
    for name in list(arrays) if server_round == 3 else ():
        arrays[name] = Array(np.ones(arrays[name].shape, np.float32))


ATTACKS: dict[str, Callable[[RecordDict, int], None] | None] = {
    "sign flip x10": sign_flip,
    "label flip": None,  # it trains on wrong labels and is honest about the rest
    "10^9 samples": claim,
    "usage": hoard,
    "one reply": one_reply,
}


def attacked(name: str, attackers: int) -> ClientApp:
    """Return the ClientApp in which the first clients attack."""
    app, change = ClientApp(), ATTACKS.get(name)

    def attacks(context: Context) -> bool:
        return int(context.node_config["partition-id"]) < attackers

    @app.query()
    def query(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        if change is claim and attacks(context):
            profile = reply.content.config_records[wire.REPORT]
            profile["rows"], profile["num-examples"] = CLAIMED, CLAIMED // 2
        return reply

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        if change is not None and attacks(context) and reply.has_content():
            change(reply.content, int(message.metadata.group_id))
        return reply

    return app


@contextmanager
def wrong_labels(attackers: int) -> Iterator[None]:
    """Let the first clients train on 9 - y."""
    real = Session.train_tensors

    def wrong(self: Session) -> Tensors:
        x, y = real(self)
        return x, 9 - y if self.partition_id < attackers else y

    Session.train_tensors = wrong  # type: ignore[method-assign]
    try:
        yield
    finally:
        Session.train_tensors = real  # type: ignore[method-assign]


def run(job: tuple[str, str, int, int, argparse.Namespace]) -> float:
    """Train once; return the accuracy of the server's predictor after the last round.

    A run that ends before is one in which nothing was learnt.
    """
    protection, attack, attackers, seed, args = job
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    with (
        tempfile.TemporaryDirectory() as folder,
        wrong_labels(attackers if attack == "label flip" else 0),
    ):
        config: dict[str, Any] = {
            "partition": args.partition,
            "num-experts": 4,
            "num-rounds": args.rounds,
            "test-samples": 200,
            "batch-size": 64,
            "lr": 0.1,
            "keep-checkpoints": 1,
            "seed": seed,
            **PROTECTIONS[protection],
            "output-dir": folder,
        }
        context = Context(
            run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config
        )
        app = attacked(attack, attackers)
        grid = InlineGrid(app, args.clients, config, serialise=False)
        server_app(grid=grid, context=context)
        [path] = Path(folder).glob("*/metrics.jsonl")
        last = json.loads(path.read_text().splitlines()[-1])
    return float(last["server_global"])


def main() -> None:
    """Print a line per protection, as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--attackers", default="1,2")
    parser.add_argument("--attacks", default=";".join(ATTACKS))
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--partition", default="dirichlet:1")
    parser.add_argument("--protections", default=";".join(PROTECTIONS))
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    numbers = [int(number) for number in args.attackers.split(",")]
    columns = [("", 0), *itertools.product(args.attacks.split(";"), numbers)]
    heads = [f"{attack}, {n}" if n else "no attacker" for attack, n in columns]
    print(
        f"{args.clients} clients, {args.partition}, {args.rounds} rounds, {args.seeds}"
    )
    print("| protection | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|", flush=True)
    with ProcessPoolExecutor(args.processes) as pool:
        for protection in args.protections.split(";"):
            jobs = [
                (protection, attack, number, seed, args)
                for attack, number in columns
                for seed in seeds
            ]
            found = list(pool.map(run, jobs))
            cells = [protection]
            for first in range(0, len(found), len(seeds)):
                values = found[first : first + len(seeds)]
                spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
                cells.append(f"{mean(values):.2f}{spread}")
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
