"""What a switching cost buys: fewer experts that move, against fitness and accuracy.

``python -m benchmarks.switching_cost`` trains FLEX-MoE on digits with several values of
``switching-cost``, the devices' cache of experts on, and prints for each, over the
seeds, how many experts a round sends to a client that did not have them the round
before, the bytes sent down, and the accuracies at the end.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from server_app.commands.simulate import simulate
from server_app.run_folder.matrices import read_assignments

MEASURES = ("moves a round", "MB down", "server_global", "client_local", "CV cum")


def moves(assignments: np.ndarray) -> float:
    """Return how many pairs of client and expert are new in a round, on average.

    Parameters
    ----------
    assignments : ndarray of bool, shape (T, C, E)
        Who held what; the first round, in which everything is new, does not count.
    """
    return float((assignments[1:] & ~assignments[:-1]).sum() / (len(assignments) - 1))


def run(cost: float, seed: int, clients: int, rounds: int) -> tuple[float, ...]:
    """Train once and return the measures."""
    with tempfile.TemporaryDirectory() as folder:
        config: dict[str, str | int | float | bool] = {
            "strategy": "flex-moe",
            "dataset": "digits",
            "partition": "dirichlet:0.3",
            "expert-hidden": 64,
            "expert-cache": True,
            "switching-cost": cost,
            "num-rounds": rounds,
            "eval-every": rounds,
            "test-samples": 0,
            "keep-checkpoints": 1,
            "seed": seed,
            "output-dir": folder,
        }
        simulate(config, clients)
        [path] = Path(folder).glob("*/metrics.jsonl")
        records = [json.loads(line) for line in path.read_text().splitlines()]
        moved = moves(read_assignments(path.parent).values)
    last = records[-1]
    return (
        moved,
        sum(record["bytes_down"] for record in records) / 1e6,
        100 * last["server_global"],
        100 * last["client_local"],
        last["cv_cumulative"],
    )


def main() -> None:
    """Print a line per cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--costs", default="0,0.02,0.1,0.5")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    lines = []
    for cost in map(float, args.costs.split(",")):
        runs = [run(cost, seed, args.clients, args.rounds) for seed in seeds]
        cells = [f"{cost:g}"]
        for values in zip(*runs, strict=True):
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3g}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    print(f"{args.clients} clients, {args.rounds} rounds, seeds {args.seeds}")
    print("| switching-cost | " + " | ".join(MEASURES) + " |")
    print("|---" * (len(MEASURES) + 1) + "|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
