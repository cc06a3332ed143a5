"""Run a study and print its tables.

``python -m benchmarks.study --preset quick --data-dir DIR`` runs what is missing in
``results/study-quick/runs.jsonl``, so that it can be stopped and continued (with other
code, name another ``--out``), and writes ``table.csv``, ``tables.md`` and figures
beside it. ``--ray-address`` runs on the machines of a Ray
cluster. ``--only cifar10,classes:2`` keeps the runs that have all of these among
their table, data set, partition and strategy.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.study.cells import Cell, read_lines
from benchmarks.study.costs import with_costs
from benchmarks.study.one_cell import WorkersError
from benchmarks.study.presets import PRESETS
from benchmarks.study.runner import (
    Workers,
    add_workers_arguments,
    run_all,
    workers_of,
)
from benchmarks.study.tables import compact, markdown, paired, write_csv
from benchmarks.study.variants import BASELINE, OURS, PEER


def chosen(cells: list[Cell], only: str) -> list[Cell]:
    """Return the cells that have every word of ``only`` among their names."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    return [
        cell
        for cell in cells
        if set(words)
        <= {
            cell.table,
            cell.dataset,
            cell.partition,
            cell.label,
            str(cell.config["strategy"]),
            f"seed={cell.seed}",
        }
    ]


def run_missing(
    cells: list[Cell], out: Path, workers: Workers, data_dir: str
) -> tuple[dict[str, dict[str, Any]], int]:
    """Run what ``out`` has no line of, behind a progress bar.

    Returns
    -------
    lines, failures
        All lines by key, and how many runs failed.
    """
    lines = {line["key"]: line for line in read_lines(out)}
    missing = {cell.key: cell for cell in cells if cell.key not in lines}
    columns = (
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    failures = 0
    with Progress(*columns) as progress:
        bar = progress.add_task("", total=len(missing))
        for cell, line, error in run_all([*missing.values()], out, workers, data_dir):
            progress.advance(bar)
            if line is not None:
                lines[cell.key] = line
            else:
                failures += 1
                where = f"{cell.dataset} {cell.partition} {cell.label}"
                progress.print(f"{where}, seed {cell.seed}: {error}", markup=False)
    return lines, failures


def main() -> int:
    """Run a preset; 1 if a run failed, 2 if ``--only`` leaves nothing."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--only", default="", metavar="NAME,...")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=Path, metavar="DIR")
    add_workers_arguments(parser)
    args = parser.parse_args()
    cells = chosen(PRESETS[args.preset](), args.only)
    if not cells:
        print(f"error: no run of {args.preset} has all of {args.only!r}")
        return 2
    folder = args.out or Path("results") / f"study-{args.preset}"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "runs.jsonl"
    try:
        lines, failures = run_missing(cells, out, workers_of(args), args.data_dir)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with what {out} lacks")
        return 130
    except WorkersError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = with_costs(cells, lines, args.data_dir)
    write_csv(folder / "table.csv", cells, lines)
    text = "\n".join(
        [
            markdown(cells, lines),
            paired(cells, lines, BASELINE),
            compact(cells, lines, OURS, BASELINE, PEER),
        ]
    )
    (folder / "tables.md").write_text(text, "utf-8")
    from benchmarks.study.figures import draw

    print(text)
    for path in (folder / "table.csv", *draw(cells, lines, folder)):
        print(path)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
