"""The same clients, data, model and local steps, four ways; seconds and bytes a round.

``python -m benchmarks.side_by_side`` trains 20 clients on CIFAR-10 with

- *floor*: the bare PyTorch loop, client after client, no federation at all; before and
  after each of the others, which is compared with these two;
- *inline*: ExpertFleet over the in-process grid;
- *simulation*: ExpertFleet under ``flwr run``;
- *stock*: Flower's FedAvg under ``flwr run``, the whole mixture to everybody.

One client trains at a time with one thread in all of them, so that their times compare.
A round is a repetition; of every run the first round (start-up) and the last one
(evaluation) are left out. Seconds are from the end of a round to the end of the next;
CPU seconds are those of all processes of the contender, SuperLink and Ray included, and
compare on a machine that others use too. The floor, too, keeps freed memory.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.cpu_meter import CpuMeter
from benchmarks.stock_fedavg.stock_fedavg.app import settings_of, tensors_of, train
from client_app.allocator import keep_freed_memory
from common.config import Settings
from common.shape import dataset_of, model_spec
from server_app.launcher.run import run_simulation
from server_app.simulate import simulate

ROOT = Path(__file__).resolve().parents[1]
STOCK = Path(__file__).with_name("stock_fedavg")

Measured = dict[str, Any]


def floor(settings: Settings, clients: int, rounds: int) -> Measured:
    """Train every client's two experts in a plain loop."""
    torch.set_num_threads(1)
    spec = model_spec(settings, dataset_of(settings))
    data = [tensors_of(settings, number, clients) for number in range(clients)]
    held = range(settings.rounds.expert_capacity.largest)
    ended, spent = [], []
    for _ in range(rounds + 2):
        ended.append(time.time())
        spent.append(time.process_time())
        for x, y in data:
            train(spec.build(held), x, y, settings)
    return {"seconds": steps(ended)[1:], "cpu": steps(spent)[1:]}


def steps(values: list[float]) -> list[float]:
    """Return the differences of neighbours."""
    return [b - a for a, b in pairwise(values)]


def _measured(folder: Path, meter: CpuMeter) -> Measured:
    """Return what a run of ExpertFleet left: times of checkpoints, counted bytes."""
    [run] = folder.glob("*/run.json")
    ended = [p.stat().st_mtime_ns / 1e9 for p in sorted(run.parent.glob("*/*.ckpt"))]
    lines = (run.parent / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    last = records[-2]
    return {
        "seconds": steps(ended)[:-1],
        "cpu": steps(meter.at(ended))[:-1],
        "bytes_down": last["bytes_down"],
        "bytes_up": last["bytes_up"],
    }


def expertfleet(config: dict[str, Any], clients: int, *, ray: bool) -> Measured:
    """Run ExpertFleet, in this process or under ``flwr run``."""
    rounds = int(config["num-rounds"])
    with tempfile.TemporaryDirectory() as folder:
        mine = {
            **config,
            "eval-every": rounds,
            "keep-checkpoints": rounds,
            "output-dir": folder,
        }
        with CpuMeter() as meter:
            if not ray:
                simulate(mine, clients)
            elif run_simulation(ROOT, clients, mine, os.cpu_count() or 1, quiet=True):
                raise RuntimeError("`flwr run` of ExpertFleet failed")
        return _measured(Path(folder), meter)


def stock(config: dict[str, Any], clients: int) -> Measured:
    """Run Flower's own FedAvg."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        mine = {**config, "out": str(out), "clients": clients}
        with CpuMeter() as meter:
            if run_simulation(STOCK, clients, mine, os.cpu_count() or 1, quiet=True):
                raise RuntimeError("`flwr run` of stock FedAvg failed")
        facts: Measured = json.loads(out.read_text())
    ended = facts["ended"]
    facts["seconds"] = steps(ended)[1:-1]
    facts["cpu"] = steps(meter.at(ended))[1:-1]
    return facts


def config_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings every contender trains by."""
    return {
        "dataset": args.dataset,
        "data-dir": str(Path(args.data_dir).absolute()),
        "partition": "dirichlet:0.3",
        "train-samples": args.train_samples,
        "backbone": args.backbone,
        "num-experts": 8,
        "expert-hidden": args.expert_hidden,
        "local-epochs": 1,
        "batch-size": 32,
        "num-rounds": args.rounds,
        "seed": 0,
    }


def main() -> None:
    """Run all four and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--train-samples", type=int, default=6000)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--backbone", default="cnn")
    parser.add_argument("--expert-hidden", type=int, default=512)
    args = parser.parse_args()
    keep_freed_memory()
    config = config_of(args)
    settings = settings_of(config)
    contenders: dict[str, Callable[[], Measured]] = {
        "inline": lambda: expertfleet(config, args.clients, ray=False),
        "simulation": lambda: expertfleet(config, args.clients, ray=True),
        "stock": lambda: stock(config, args.clients),
    }
    floors = [floor(settings, args.clients, args.rounds - 2)]
    results: dict[str, Measured] = {}
    for name, run in contenders.items():
        results[name] = run()
        floors.append(floor(settings, args.clients, args.rounds - 2))
        for unit in ("seconds", "cpu"):
            base = median(floors[-2][unit] + floors[-1][unit])
            results[name][f"{unit} over"] = median(results[name][unit]) / base - 1
    results["floor"] = {
        unit: [value for each in floors for value in each[unit]]
        for unit in ("seconds", "cpu")
    }
    print(f"{args.clients} clients, {args.rounds} rounds, {os.cpu_count()} cores")
    print("| | rounds | s a round | floor | CPU s | floor | MB down + up | of stock |")
    print("|---" * 8 + "|")
    whole = results["stock"]["bytes_down"] + results["stock"]["bytes_up"]
    for name, result in results.items():
        times, cpu = result["seconds"], result["cpu"]
        sent = result.get("bytes_down", 0) + result.get("bytes_up", 0)
        cells = [
            name,
            str(len(times)),
            f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})",
            f"{100 * result.get('seconds over', 0):+.0f} %",
            f"{median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f})",
            f"{100 * result.get('cpu over', 0):+.0f} %",
            f"{sent / 1e6:.1f}",
            f"{100 * sent / whole:.1f} %",
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
