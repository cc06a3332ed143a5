"""The same clients, data, model and local steps, four ways; seconds and bytes a round.

``python -m benchmarks.side_by_side`` trains 20 clients on CIFAR-10 with

- *floor*: the bare PyTorch loop, client after client, no federation at all;
- *inline*: ExpertFleet over the in-process grid;
- *simulation*: ExpertFleet under ``flwr run``;
- *stock*: Flower's FedAvg under ``flwr run``, the whole mixture to everybody.

The four take turns of some seconds, three of them stopped while one runs; their seconds
are those of their turns. One client trains at a time with one thread in all of them, so
that their times compare. A round is a repetition; of every run the first round
(start-up) and the last one (evaluation) are left out. Seconds are from the end of a
round to the end of the next; CPU seconds are those of all processes of the contender,
SuperLink and Ray included. The floor, too, keeps freed memory.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.stock_fedavg.stock_fedavg.app import settings_of, tensors_of, train
from benchmarks.turns import Contender, take_turns
from client_app.device.allocator import keep_freed_memory
from common.shape import dataset_of, model_spec
from server_app.commands.simulate import simulate
from server_app.launcher.run import run_simulation
from server_app.launcher.signals import Interrupted, Signals

ROOT = Path(__file__).resolve().parents[1]
STOCK = Path(__file__).with_name("stock_fedavg")

Config = dict[str, Any]


def floor(folder: Path, config: Config, clients: int) -> None:
    """Train every client's experts in a plain loop."""
    keep_freed_memory()
    torch.set_num_threads(1)
    settings = settings_of(config)
    spec = model_spec(settings, dataset_of(settings))
    data = [tensors_of(settings, number, clients) for number in range(clients)]
    held = range(settings.rounds.expert_capacity.largest)
    with (folder / "ended").open("w", buffering=1) as ended:
        for _ in range(settings.rounds.num_rounds):
            for x, y in data:
                train(spec.build(held), x, y, settings)
            print(time.time(), file=ended)


def inline(folder: Path, config: Config, clients: int) -> None:
    """Run ExpertFleet in this process."""
    simulate(_logged(folder, config), clients)


def simulation(folder: Path, config: Config, clients: int) -> None:
    """Run ExpertFleet under ``flwr run``."""
    _flwr_run(ROOT, _logged(folder, config), clients)


def stock(folder: Path, config: Config, clients: int) -> None:
    """Run Flower's own FedAvg."""
    _flwr_run(STOCK, {**config, "out": str(folder), "clients": clients}, clients)


def _logged(folder: Path, config: Config) -> Config:
    rounds = config["num-rounds"]
    kept = {"eval-every": rounds, "keep-checkpoints": rounds}
    return {**config, **kept, "output-dir": str(folder)}


def _flwr_run(app: Path, config: Config, clients: int) -> None:
    code = run_simulation(app, clients, config, os.cpu_count() or 1, quiet=True)
    if code:
        raise SystemExit(code)


def ended(folder: Path) -> list[float]:
    """Return when each round ended: a line each, or a checkpoint."""
    lines = folder / "ended"
    if lines.exists():
        return [float(line) for line in lines.read_text().split()]
    return [path.stat().st_mtime_ns / 1e9 for path in sorted(folder.glob("*/*/*.ckpt"))]


def sent(folder: Path) -> float:
    """Return the bytes of a round, down and up; 0 for the floor."""
    counted = folder / "bytes.json"
    if counted.exists():
        return float(sum(json.loads(counted.read_text())))
    for metrics in folder.glob("*/metrics.jsonl"):
        record = json.loads(metrics.read_text().splitlines()[-2])
        return float(record["bytes_down"] + record["bytes_up"])
    return 0.0


def config_of(args: argparse.Namespace) -> Config:
    """Return the settings every contender trains by."""
    return {
        "dataset": args.dataset,
        "data-dir": str(Path(args.data_dir).absolute()),
        "partition": "dirichlet:0.3",
        "train-samples": args.train_samples,
        "backbone": args.backbone,
        "num-experts": 8,
        "expert-hidden": args.expert_hidden,
        "local-epochs": args.local_epochs,
        "batch-size": 32,
        "num-rounds": args.rounds,
        "seed": 0,
    }


RUNS = (floor, inline, simulation, stock)


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
    parser.add_argument("--local-epochs", type=int, default=1)
    parser.add_argument("--turn", type=float, default=2.0, help="seconds")
    args = parser.parse_args()
    config = config_of(args)
    with tempfile.TemporaryDirectory() as root:
        folders = {run: Path(root) / run.__name__ for run in RUNS}
        contenders = {}
        for run, folder in folders.items():
            folder.mkdir()
            # The others start slowly: the floor is there until they have ended.
            rounds = args.rounds + (4 if run is floor else 0)
            mine = {**config, "num-rounds": rounds}
            contenders[run] = Contender(run, folder, mine, args.clients)
        with Signals() as signals:
            signals.arm()
            take_turns(list(contenders.values()), args.turn)
        used = {
            run: contenders[run].clock.between(ended(folder)[:-1])
            for run, folder in folders.items()
        }
        loads = {run: sent(folder) for run, folder in folders.items()}
    print(f"{args.clients} clients, {args.rounds} rounds, {os.cpu_count()} cores")
    print("| | rounds | s a round | floor | CPU s | floor | MB down + up | of stock |")
    print("|---" * 8 + "|")
    for run, both in used.items():
        cells = [run.__name__, str(len(both[0]))]
        for spent, floors in zip(both, used[floor], strict=True):
            cells += [
                f"{median(spent):.2f} ({min(spent):.2f} to {max(spent):.2f})",
                f"{100 * (median(spent) / median(floors) - 1):+.0f} %",
            ]
        share = 100 * loads[run] / loads[stock]
        cells += [f"{loads[run] / 1e6:.1f}", f"{share:.1f} %"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    try:
        main()
    except Interrupted:
        sys.exit("interrupted: every contender was stopped")
