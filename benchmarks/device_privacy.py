"""Accuracy against epsilon with noise on the device, and what that noise costs in time.

``python -m benchmarks.device_privacy accuracy`` trains digits of a few devices with
``privacy = "device"`` by a noise multiplier that spends just so much epsilon over all
rounds, for each epsilon and seed; ``cost`` measures training with and without noise,
and what importing a library takes of a message of a device, which is a process of its
own.

The accuracy is the server's, on the test set that nobody trains on.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client_app.dp_sgd import train_private
from client_app.training import Objective, train
from common.accountant import Release, quick_bound
from common.moe import ModelSpec
from common.settings.privacy_settings import PrivacySettings
from common.settings.training_settings import TrainingSettings
from server_app.commands.simulate import simulate

CONFIG: dict[str, Any] = {
    "num-rounds": 10,
    "num-experts": 2,
    "expert-capacity": 2,
    "partition": "iid",
    "gate-balance": 0.0,
    "local-epochs": 2,
    "batch-size": 96,
    "lr": 0.2,
}
CLIENTS, SAMPLES, DELTA = 3, 383, 1e-5
"""Digits that each of three devices trains on."""
FREE = 0.0
"""Stands for no noise at all."""


def multiplier_for(epsilon: float) -> float:
    """Return the least noise multiplier that spends no more over all rounds."""
    batch, epochs = CONFIG["batch-size"], CONFIG["local-epochs"]
    steps = CONFIG["num-rounds"] * epochs * -(-SAMPLES // batch)
    low, high = 0.3, 100.0
    for _ in range(30):
        middle = (low * high) ** 0.5
        bound = quick_bound({Release(middle, batch / SAMPLES): steps}, DELTA)
        low, high = (low, middle) if bound <= epsilon else (middle, high)
    return round(high, 3)


def run(epsilon: float, seed: int, strategy: str) -> float:
    """Return the accuracy of the last round."""
    config = {**CONFIG, "seed": seed, "strategy": strategy}
    if epsilon != FREE:
        config |= {"privacy": "device", "noise-multiplier": multiplier_for(epsilon)}
        config |= {"max-epsilon": 0.0, "delta": DELTA}
    with tempfile.TemporaryDirectory() as folder:
        simulate({**config, "output-dir": folder}, CLIENTS)
        [lines] = Path(folder).rglob("metrics.jsonl")
        last = json.loads(lines.read_text().splitlines()[-1])
    return float(last["server_global"])


def accuracy(args: argparse.Namespace) -> None:
    """Print a line for each strategy and epsilon, as soon as it is known."""
    for strategy in args.strategies.split(","):
        for epsilon in map(float, args.epsilons.split(",")):
            found = [run(epsilon, seed, strategy) for seed in range(args.seeds)]
            noise = "-" if epsilon == FREE else f"{multiplier_for(epsilon):g}"
            print(
                f"{strategy:10} epsilon {epsilon or 'none':>5} z {noise:>6}: "
                f"{statistics.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})",
                flush=True,
            )


SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=8,
    expert_hidden=32,
    top_k=1,
)


def cost(args: argparse.Namespace) -> None:
    """Print ratios of processor time, and what an import takes."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    y = torch.from_numpy(np.arange(256) % 10)
    x = torch.from_numpy(rng.normal(size=(256, 1, 8, 8)).astype(np.float32))
    settings = TrainingSettings(local_epochs=1, batch_size=32)
    plain: dict[str, Any] = {"settings": settings, "objective": Objective()}
    for backbone, expert in (("mlp", "mlp"), ("cnn", "conv")):
        spec = ModelSpec(**{**SPEC.__dict__, "backbone": backbone, "expert": expert})
        ratios = []
        for number in range(args.seeds + 1):
            one, other = spec.build([1, 3], 0), spec.build([1, 3], 0)
            started = time.process_time()
            train(one, x, y, **plain, rng=rng)
            between = time.process_time()
            train_private(other, x, y, **plain, rules=PrivacySettings())
            if number:  # the first warms up
                ended = time.process_time()
                ratios.append((ended - between) / (between - started))
        print(f"{backbone} and {expert}: {min(ratios):.0f} to {max(ratios):.0f} times")
    for name in ("dp_accounting.rdp", "opacus"):
        took = [_import(name) for _ in range(args.seeds)]
        seconds_, mib = zip(*took, strict=True)
        print(f"import {name}: {min(seconds_):.1f} s, {min(mib):.0f} MiB beside torch")


def _import(name: str) -> tuple[float, float]:
    """Return processor seconds and MiB of an import, in a process that has torch."""
    script = (
        "import torch, time, resource as r; a = r.getrusage(r.RUSAGE_SELF).ru_maxrss;"
        f"t = time.process_time(); import {name};"
        "print(time.process_time() - t, r.getrusage(r.RUSAGE_SELF).ru_maxrss - a)"
    )
    out = subprocess.check_output([sys.executable, "-c", script], text=True)
    seconds, kib = map(float, out.split())
    return seconds, kib / 1024


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["accuracy", "cost"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilons", default="0,8,4,2", help="0 is no noise")
    parser.add_argument("--strategies", default="flex-moe,fedavg")
    args = parser.parse_args()
    {"accuracy": accuracy, "cost": cost}[args.what](args)


if __name__ == "__main__":
    main()
