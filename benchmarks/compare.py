"""Strategies side by side on the same data, settings and seeds.

``python -m benchmarks.compare --strategies "flex-moe;greedy;random" --seeds 0,1,2
--run-config 'partition="classes:2" num-rounds=40' --out results/digits.jsonl`` is a
study of one cell (``benchmarks.study`` has the papers' grids): runs that ``--out`` has
already are skipped, and a Markdown table of means and 95 % intervals is printed.
"""

import argparse
import re
import sys
from pathlib import Path

from benchmarks.study.__main__ import run_missing
from benchmarks.study.cells import Cell, Scalar
from benchmarks.study.one_cell import WorkersError
from benchmarks.study.runner import add_workers_arguments, workers_of
from benchmarks.study.tables import markdown
from server_app.launcher.config import THIS_APP, app_defaults, parse_run_config

# A strategy's own name may have a colon (module:Class, flwr:Class); options have "=".
_STRATEGY = re.compile(r"([^=]+?)(?::(\s*[\w-]+\s*=.*))?")


def strategy_and_options(text: str) -> tuple[str, str]:
    """Split ``NAME``, ``NAME:OPTIONS``, ``module:Class`` or ``module:Class:OPTIONS``.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if (match := _STRATEGY.fullmatch(text.strip())) is None:
        raise ValueError(f"{text!r} is neither NAME nor NAME:KEY=VALUE")
    return match.group(1), match.group(2) or ""


def main() -> int:
    """Run what is missing and print the table; 1 if a run failed, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--strategies",
        required=True,
        help="NAME or NAME:OPTIONS, separated by ';'; module:Class is a name, too",
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--run-config", default="")
    parser.add_argument("--out", type=Path, required=True)
    add_workers_arguments(parser)
    args = parser.parse_args()
    try:
        given: dict[str, Scalar] = dict(parse_run_config([args.run_config]))
        seeds = [int(seed) for seed in args.seeds.split(",")]
        strategies = {
            label: strategy_and_options(label)
            for label in filter(None, map(str.strip, args.strategies.split(";")))
        }
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    config = {**app_defaults(THIS_APP), **given}
    cells = []
    for seed in seeds:
        for label, (name, options) in strategies.items():
            cells.append(
                Cell(
                    table=f"{args.clients} clients",
                    dataset=str(config["dataset"]),
                    partition=str(config["partition"]),
                    label=label,
                    config={**given, "strategy": name, "strategy-options": options},
                    seed=seed,
                    clients=args.clients,
                )
            )
    data_dir = str(config["data-dir"])
    try:
        lines, failures = run_missing(cells, args.out, workers_of(args), data_dir)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with what {args.out} lacks")
        return 130
    except WorkersError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(cells, lines))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
