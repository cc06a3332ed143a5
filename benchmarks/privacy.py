"""What differential privacy of clients costs, and what it hides.

``python -m benchmarks.privacy run --data-dir DIR --out FILE`` trains 100 clients for
every data set, way of training, epsilon and seed, and writes a line of JSON as each run
ends: it can be stopped and goes on where it was. ``table`` instead of ``run`` prints
the tables.

Ways of training: FLEX-MoE, whose load bounds hold a floor of holders for every expert;
experts drawn at random, without one; the dense model of as many bytes (FedAvg). The
noise is that with which all rounds together cost epsilon at delta = 1e-5 (``none``: no
clipping, no noise, and weights, fitness and usage as without privacy). ``clipped`` has
noise too small to matter: what clipping and equal weights cost alone.

Who was trained on is guessed from the model's loss: of the 100 clients that were and of
25 that were not, the mean loss on their training samples. AUC is the chance that a
member has the lower one; 0.5 is guessing. Noise on the device is measured by
``benchmarks.device_privacy``.
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.inline_grid import InlineGrid

CLIENTS, OUTSIDERS = 100, 25
DELTA = 1e-5
SEEDS = (0, 1, 2)
EPSILONS: tuple[float | str, ...] = ("none", "clipped", 8.0, 4.0, 2.0)
WAYS: dict[str, dict[str, Any]] = {
    "flex-moe": {"strategy": "flex-moe"},
    "random": {"strategy": "random"},
    "fedavg": {"strategy": "fedavg", "expert-hidden": 64},
}
SETS: dict[str, dict[str, Any]] = {
    "digits": {"dataset": "digits", "train-samples": 0, "local-epochs": 10},
    "emnist": {"dataset": "emnist", "train-samples": 5000, "local-epochs": 3},
}
COMMON: dict[str, Any] = {
    "backbone": "mlp",
    "num-experts": 4,
    "expert-capacity": 2,
    "partition": "dirichlet:0.8",
    "num-rounds": 12,
    "lr": 0.1,
    "test-samples": 2000,
    "privacy-clip": 0.5,
    "delta": DELTA,
    "max-epsilon": 0.0,
}


class Members(InlineGrid):
    """A fleet of which only the first nodes are there; the data are cut for all."""

    members = CLIENTS

    def get_node_ids(self) -> list[int]:
        """Return the nodes that are there."""
        return super().get_node_ids()[: self.members]


def multiplier(epsilon: float, rounds: int) -> float:
    """Return the least z, to a thousandth, with which all rounds cost ``epsilon``."""
    from common.accountant import Release, epsilon_of

    low, high = 0.05, 100.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        cheap = epsilon_of({Release(middle): rounds}, DELTA) <= epsilon
        low, high = (low, middle) if cheap else (middle, high)
    return high


def settings_of(cell: dict[str, Any], data_dir: str, folder: str) -> dict[str, Any]:
    """Return the run-config of one run."""
    from server_app.launcher.config import THIS_APP, app_defaults

    config = {
        **app_defaults(THIS_APP),
        **COMMON,
        **SETS[cell["set"]],
        **WAYS[cell["way"]],
        **cell["more"],
        "seed": cell["seed"],
        "data-dir": data_dir,
        "output-dir": folder,
    }
    rounds = config["num-rounds"]
    config["eval-every"] = rounds
    if cell["epsilon"] != "none":
        tiny = cell["epsilon"] == "clipped"
        noise = 0.05 if tiny else multiplier(cell["epsilon"], rounds)
        config |= {"privacy": "central", "noise-multiplier": noise}
    return config


def trained(cell: dict[str, Any], data_dir: str) -> dict[str, Any]:
    """Run one cell; return its line."""
    from client_app.app import app as client_app
    from common.settings import Settings
    from common.shape import dataset_of, model_spec
    from server_app.rounds.evaluation import server_evaluation
    from server_app.rounds.loop import RoundLoop
    from server_app.strategies import find_strategy

    config = settings_of(cell, data_dir, "results")
    settings = Settings.from_run_config(config)
    spec = model_spec(settings, dataset_of(settings))
    strategy = find_strategy(settings.run.strategy)(settings, spec)
    loop, records = RoundLoop(strategy), []
    close = loop.close
    loop.close = lambda *a: records.append(close(*a)) or records[-1]  # type: ignore
    grid = Members(client_app, CLIENTS + OUTSIDERS, config, closed=True)
    evaluation = server_evaluation(
        strategy, loop.fleet.agreement, None, lambda: loop.fleet.clients
    )
    loop.run(grid, settings.rounds.num_rounds, 3600.0, evaluation)
    last = records[-1].to_json()
    return {
        **cell,
        "accuracy": last["server_global"],
        "spent": last.get("epsilon"),
        "noise": config["noise-multiplier"] if cell["epsilon"] != "none" else 0.0,
        "values": sum(vector.size for vector in strategy.model.values()),
        "load_cv": last["cv_round"],
        **guessed(strategy, settings),
    }


def guessed(strategy: Any, settings: Any) -> dict[str, float]:
    """Return how well the loss tells members from others: AUC and advantage."""
    from sklearn.metrics import roc_auc_score, roc_curve

    losses = losses_of(strategy, settings)
    member = np.arange(len(losses)) < CLIENTS
    wrong, right, _ = roc_curve(member, -losses)
    return {
        "auc": float(roc_auc_score(member, -losses)),
        "advantage": float((right - wrong).max()),
        "loss_members": float(losses[member].mean()),
        "loss_others": float(losses[~member].mean()),
    }


@torch.inference_mode()
def losses_of(strategy: Any, settings: Any) -> NDArray[np.float64]:
    """Return the model's mean loss on the training samples of every share."""
    from common.data import load_client_data, parse_partition
    from common.shape import dataset_of

    model = strategy.global_model().eval()
    data, found = dataset_of(settings), []
    for share in range(CLIENTS + OUTSIDERS):
        own = load_client_data(
            data,
            parse_partition(settings.data.partition),
            share,
            CLIENTS + OUTSIDERS,
            settings.run.seed,
            held_out=settings.data.held_out,
            train_samples=settings.data.train_samples,
        )
        x, y = own.normalise(own.x[own.train]), own.y[own.train]
        chances = model(torch.from_numpy(x)).clamp_min(1e-12)[torch.arange(len(y)), y]
        found.append(float(-chances.log().mean()))
    return np.array(found)


def cells(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield all that is to be run, seed by seed."""
    from server_app.launcher.config import parse_run_config

    more = parse_run_config([args.run_config])
    for seed in args.seeds:
        for name in args.sets:
            for epsilon in EPSILONS:
                if str(epsilon) not in args.epsilons:
                    continue
                for way in args.ways:
                    yield {
                        "set": name,
                        "way": way,
                        "epsilon": epsilon,
                        "seed": seed,
                        "more": more,
                    }


KEYS = ("set", "way", "epsilon", "seed", "more")


def lines_of(out: Path) -> list[dict[str, Any]]:
    """Return the lines that are there."""
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text().splitlines()]


def run(args: argparse.Namespace) -> None:
    """Run what is missing."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    done = [{key: line[key] for key in KEYS} for line in lines_of(args.out)]
    for cell in cells(args):
        if cell in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            line = trained(cell, args.data_dir)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def table(args: argparse.Namespace) -> None:
    """Print accuracy and AUC by epsilon, mean and spread over seeds."""
    lines = lines_of(args.out)
    for name in dict.fromkeys(line["set"] for line in lines):
        print(f"\n{name}: accuracy, and AUC of the guess who was trained on\n")
        print("| way | " + " | ".join(f"{e}" for e in EPSILONS) + " |")
        print("|---" * (len(EPSILONS) + 1) + "|")
        for way in WAYS:
            found = [
                [
                    x
                    for x in lines
                    if (x["set"], x["way"], x["epsilon"]) == (name, way, e)
                ]
                for e in EPSILONS
            ]
            for key in ("accuracy", "auc"):
                row = [spread(line[key] for line in each) for each in found]
                print(f"| {way}, {key} | " + " | ".join(row) + " |")


def spread(values: Iterable[float]) -> str:
    """Return mean and standard deviation over seeds."""
    found = list(values)
    if not found:
        return "-"
    return (
        f"{fmean(found):.3f} +- {stdev(found):.3f}" if found[1:] else f"{found[0]:.3f}"
    )


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--out", type=Path, default=Path("results/privacy.jsonl"))
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--sets", nargs="*", default=[*SETS], choices=[*SETS])
    parser.add_argument("--ways", nargs="*", default=[*WAYS], choices=[*WAYS])
    every = [str(epsilon) for epsilon in EPSILONS]
    parser.add_argument("--epsilons", nargs="*", default=every, choices=every)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--run-config", default="")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    run(args) if args.what == "run" else table(args)


if __name__ == "__main__":
    main()
