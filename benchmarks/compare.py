"""Strategies side by side on the same data, settings and seeds.

``python -m benchmarks.compare --strategies "flex-moe;greedy;random" --seeds 0,1,2
--run-config 'partition="classes:2" num-rounds=40' --out results/digits.jsonl`` runs
every pair in a process of its own over the in-process grid, adds a line to ``--out`` as
each one ends (pairs already there are skipped, so a study can be continued), and prints
a Markdown table of mean and standard deviation over seeds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# name:options picks options of one strategy: "fedprox:mu=0.1".
ACCURACIES = ("server_global", "client_global", "client_local")
COLUMNS = (*ACCURACIES, "cv_cumulative", "MB down", "MB up", "seconds")


def run_one(
    strategy: str, seed: int, run_config: str, clients: int, key: str
) -> dict[str, Any]:
    """Run one strategy with one seed; return its line.

    Raises
    ------
    RuntimeError
        If the run failed, with the end of its output.
    """
    name, _, options = strategy.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        config = (
            f'{run_config} strategy="{name}" strategy-options="{options}" seed={seed} '
            f'output-dir="{folder}"'
        )
        command = [sys.executable, "-m", "server_app", "simulate"]
        done = subprocess.run(
            [*command, "--num-supernodes", str(clients), "--run-config", config],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            tail = (done.stdout + done.stderr)[-2000:]
            raise RuntimeError(f"{strategy}, seed {seed} failed:\n{tail}")
        [path] = Path(folder).glob("*/metrics.jsonl")
        rounds = [json.loads(line) for line in path.read_text().splitlines()]
    last = rounds[-1]
    return {
        "key": key,
        "strategy": strategy,
        "seed": seed,
        "rounds": len(rounds),
        **{name: last.get(name) for name in (*ACCURACIES, "cv_cumulative")},
        "MB down": sum(r["bytes_down"] for r in rounds) / 1e6,
        "MB up": sum(r["bytes_up"] for r in rounds) / 1e6,
        "seconds": sum(r["seconds"] for r in rounds),
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table, one row per strategy, mean and spread over seeds."""
    rows = ["| strategy | seeds | " + " | ".join(COLUMNS) + " |"]
    rows.append("|---" * (len(COLUMNS) + 2) + "|")
    for strategy in dict.fromkeys(line["strategy"] for line in lines):
        mine = [line for line in lines if line["strategy"] == strategy]
        cells = [_cell([line[column] for line in mine]) for column in COLUMNS]
        rows.append(f"| {strategy} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    digits = 1 if mean(known) >= 10 else 3
    spread = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{spread}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--strategies", required=True, help="NAME or NAME:OPTIONS, separated by ';'"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--run-config", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    key = f"{args.clients} clients, {args.run_config}"
    lines = []
    if args.out.exists():
        lines = [json.loads(line) for line in args.out.read_text().splitlines()]
    done = {(line["key"], line["strategy"], line["seed"]) for line in lines}
    names = [name for name in args.strategies.split(";") if name]
    wanted = [
        (name, int(seed))
        for seed in args.seeds.split(",")
        for name in names
        if (key, name, int(seed)) not in done
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(run_one, name, seed, args.run_config, args.clients, key)
            for name, seed in wanted
        ]
        for job in jobs:
            try:
                line = job.result()
            except RuntimeError as error:
                print(error, file=sys.stderr)
                continue
            lines.append(line)
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(f"{key}\n")
    print(table([line for line in lines if line["key"] == key]))


if __name__ == "__main__":
    main()
