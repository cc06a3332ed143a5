"""Placements that got no sample: how many, and what ending them costs.

``python -m benchmarks.dead_placements`` trains FLEX-MoE as ``make simulate`` does, over
the seeds, and prints for each way of treating idle pairs: the share of placements (an
expert held by a client that replied) without a sample, over the whole run and over its
last ten rounds; the longest time a client held an expert that its gate never chose; the
CV of holders summed over rounds and the CV of routed samples, mean of the last ten
rounds; and the accuracies at the end.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from server_app.commands.simulate import simulate

WAYS: dict[str, dict[str, Any]] = {
    "frozen, no exploration": {"idle-fitness": "frozen", "gate-exploration": 0.0},
    "chance, no exploration": {"gate-exploration": 0.0},
    "chance, gate-balance 0.3": {"gate-exploration": 0.0, "gate-balance": 0.3},
    "chance, explore 0.1": {"gate-exploration": 0.1},
    "chance, explore 0.2": {"gate-exploration": 0.2},
}
MEASURES = (
    "dead %",
    "dead %, last 10",
    "longest",
    "CV holders, cumulated",
    "CV samples",
    "server_global",
    "client_global",
    "client_local",
)


def longest_idle(rounds: list[dict[str, Any]]) -> int:
    """Return for how many rounds in a row one client held one expert without a sample.

    Parameters
    ----------
    rounds : list of dict
        The lines of ``metrics.jsonl``.
    """
    longest, streak = 0, dict[tuple[str, int], int]()
    for record in rounds:
        current = dict[tuple[str, int], int]()
        for client in record["clients"]:
            held = zip(client["experts"], client["expert_samples"], strict=False)
            for expert, samples in held:
                pair = client["client"], expert
                if not samples:
                    current[pair] = streak.get(pair, 0) + 1
        longest = max(longest, *current.values(), 0)
        streak = current
    return longest


def run(way: dict[str, Any], seed: int, clients: int, rounds: int) -> tuple[float, ...]:
    """Train once and return the measures."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"num-rounds": rounds, "seed": seed, "output-dir": folder, **way}
        simulate(config, clients)
        [path] = Path(folder).glob("*/metrics.jsonl")
        records = [json.loads(line) for line in path.read_text().splitlines()]
    last = records[-1]
    return (
        100 * mean(record["dead_share"] for record in records),
        100 * mean(record["dead_share"] for record in records[-10:]),
        longest_idle(records),
        last["cv_cumulative"],
        mean(record["cv_samples"] for record in records[-10:]),
        100 * last["server_global"],
        100 * last["client_global"],
        100 * last["client_local"],
    )


def main() -> None:
    """Print a line per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    lines = []
    for name, way in WAYS.items():
        runs = [run(way, seed, args.clients, args.rounds) for seed in seeds]
        cells = [name]
        for values in zip(*runs, strict=True):
            spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3g}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    print(f"{args.clients} clients, {args.rounds} rounds, seeds {args.seeds}")
    print("| idle pairs | " + " | ".join(MEASURES) + " |")
    print("|---" * (len(MEASURES) + 1) + "|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
