"""Strategies side by side on the same data, settings and seeds.

``python -m benchmarks.compare --strategies "flex-moe;greedy;random" --seeds 0,1,2
--run-config 'partition="classes:2" num-rounds=40' --out results/digits.jsonl`` is a
study of one cell (``benchmarks.study`` has the papers' grids): runs that ``--out`` has
already are skipped, and a Markdown table of means and 95 % intervals is printed.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.study.__main__ import run_missing
from benchmarks.study.cells import Cell, Scalar
from benchmarks.study.runner import default_jobs
from benchmarks.study.tables import markdown
from server_app.launcher.config import app_defaults, parse_run_config
from server_app.simulate import APP_DIR


def main() -> int:
    """Run what is missing and print the table; 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--strategies", required=True, help="NAME or NAME:OPTIONS, separated by ';'"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--run-config", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=default_jobs())
    args = parser.parse_args()
    given: dict[str, Scalar] = dict(parse_run_config([args.run_config]))
    config = {**app_defaults(APP_DIR), **given}
    cells = []
    for seed in args.seeds.split(","):
        for label in filter(None, args.strategies.split(";")):
            name, _, options = label.partition(":")
            cells.append(
                Cell(
                    table=f"{args.clients} clients",
                    dataset=str(config["dataset"]),
                    partition=str(config["partition"]),
                    label=label,
                    config={**given, "strategy": name, "strategy-options": options},
                    seed=int(seed),
                    clients=args.clients,
                )
            )
    data_dir = str(config["data-dir"])
    lines, failures = run_missing(cells, args.out, args.jobs, data_dir)
    print(markdown(cells, lines))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
