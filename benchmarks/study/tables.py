"""A study as a tidy CSV file and as Markdown tables with confidence intervals."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.study.cells import ACCURACIES, DIFFERING, Cell, measures
from common.metrics import mean_interval

IDENTITY = ("table", "dataset", "partition", "strategy", "seed", "clients", "rounds")

Lines = Mapping[str, Mapping[str, Any]]


def cell_text(values: Iterable[float | None]) -> str:
    """Return ``mean ± half interval``, or a dash if nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    middle, half = mean_interval(known)
    digits = 1 if abs(middle) >= 10 else 3
    return f"{middle:.{digits}f}" + (
        f" ± {half:.{digits}f}" if half is not None else ""
    )


def write_csv(path: Path, cells: Sequence[Cell], lines: Lines) -> None:
    """Write one row per run, one column per measure."""
    columns = measures(lines.values())
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*IDENTITY, *columns])
        for cell in cells:
            if (line := lines.get(cell.key)) is not None:
                names = {**line, "table": cell.table, "strategy": cell.label}
                rows.writerow([names.get(key) for key in (*IDENTITY, *columns)])


def markdown(cells: Sequence[Cell], lines: Lines) -> str:
    """Return every table of a study: one row per variant, mean and 95 % interval."""
    parts = []
    for table, dataset, partition in dict.fromkeys(
        (c.table, c.dataset, c.partition) for c in cells
    ):
        mine = [
            c
            for c in cells
            if (c.table, c.dataset, c.partition) == (table, dataset, partition)
            and c.key in lines
        ]
        if not mine:
            continue
        columns = measures(lines[c.key] for c in mine)
        parts.append(f"**{table}: {dataset}, {partition}**\n")
        parts.append("| strategy | seeds | " + " | ".join(columns) + " |")
        parts.append("|---" * (len(columns) + 2) + "|")
        for label in dict.fromkeys(c.label for c in mine):
            found = [lines[c.key] for c in mine if c.label == label]
            texts = [cell_text(line.get(name) for line in found) for name in columns]
            parts.append(f"| {label} | {len(found)} | " + " | ".join(texts) + " |")
        parts.append("")
    return "\n".join(parts)


def paired(cells: Sequence[Cell], lines: Lines, baseline: str) -> str:
    """Return, per table, each variant minus the baseline: mean and 95 % interval.

    Differences are of runs of one seed, which have the same samples on the same
    clients; what both share drops out of the interval.
    """
    parts = []
    for table, dataset, partition in dict.fromkeys(
        (c.table, c.dataset, c.partition) for c in cells
    ):
        mine: dict[str, dict[int, Mapping[str, Any]]] = {}
        for c in cells:
            here = (c.table, c.dataset, c.partition) == (table, dataset, partition)
            if here and c.key in lines:
                mine.setdefault(c.label, {})[c.seed] = lines[c.key]
        base = mine.pop(baseline, None)
        if base is None or not mine:
            continue
        columns = [
            name
            for name in (*ACCURACIES, "worst_tenth", *DIFFERING)
            if any(name in line for line in base.values())
        ]
        parts.append(f"**{table}: {dataset}, {partition}, minus {baseline}**\n")
        parts.append("| strategy | seeds | " + " | ".join(columns) + " |")
        parts.append("|---" * (len(columns) + 2) + "|")
        for label, found in mine.items():
            seeds = sorted(found.keys() & base.keys())
            texts = [
                signed_text(
                    difference(found[seed].get(name), base[seed].get(name))
                    for seed in seeds
                )
                for name in columns
            ]
            parts.append(f"| {label} | {len(seeds)} | " + " | ".join(texts) + " |")
        parts.append("")
    return "\n".join(parts)


def compact(
    cells: Sequence[Cell], lines: Lines, ours: str, baseline: str, peer: str
) -> str:
    """Return one table of all cells: a variant minus the baseline, per measure.

    With the largest cumulated CV of its runs, and its bytes over the peer's, both of
    the same cell. A cell without a run of the same seed of both is left out.
    """
    columns = (*ACCURACIES[::-1], "worst_tenth", *DIFFERING)
    rows = []
    for place in dict.fromkeys((c.dataset, c.partition) for c in cells):
        mine: dict[str, dict[int, Mapping[str, Any]]] = {}
        for c in cells:
            if (c.dataset, c.partition) == place and c.key in lines:
                mine.setdefault(c.label, {})[c.seed] = lines[c.key]
        found, base = mine.get(ours, {}), mine.get(baseline, {})
        seeds = sorted(found.keys() & base.keys())
        if not seeds:
            continue
        texts = [
            signed_text(
                difference(found[seed].get(name), base[seed].get(name))
                for seed in seeds
            )
            for name in columns
        ]
        cv = max(found[seed]["cv_cumulative"] for seed in seeds)
        others = [line["MB"] for line in mine.get(peer, {}).values()]
        share = mean(found[seed]["MB"] for seed in seeds)
        texts += [f"{cv:.4f}", f"{share / mean(others):.4f}" if others else "-"]
        rows.append(f"| {' | '.join([*place, str(len(seeds)), *texts])} |")
    if not rows:
        return ""
    names = [*columns, "largest CV", f"bytes / {peer}"]
    head = f"| data | partition | seeds | {' | '.join(names)} |"
    rule = "|---" * (len(names) + 3) + "|"
    return "\n".join([f"**{ours} minus {baseline}**\n", head, rule, *rows, ""])


def difference(value: float | None, base: float | None) -> float | None:
    """Return by how much a value is above another; None if one was not measured."""
    return None if value is None or base is None else value - base


def signed_text(values: Iterable[float | None]) -> str:
    """Return :func:`cell_text` of differences, with a sign."""
    text = cell_text(values)
    return text if text.startswith("-") else f"+{text}"
